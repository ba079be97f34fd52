"""When a step is captured as CUDA graphs: not while its kind is new, and never again once that has failed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from tinygrad_chat.backend.graph_capture import GraphCapture
from tinygrad_chat.formatting import reason_of

EAGER_STEPS = 2
"""Of a kind before one is captured: kernels are compiled, and what comes once is not worth it."""

Kind = TypeVar("Kind", bound=Hashable)
Step = TypeVar("Step")


class CapturedByKind(Generic[Kind, Step]):
    """The captured steps, one for each kind: each shape of a batch, say.

    At most `limit` kinds are followed. A new one takes the place of the one that has not come for longest; those that
    are captured keep theirs, and where all are, others stay eager. After an error while a step is captured, such as a
    lack of memory, all steps stay eager, and `refused` is that error in one line.
    """

    def __init__(self, capture: GraphCapture, *, limit: int) -> None:
        self.refused: str | None = None
        self._capture: GraphCapture | None = capture
        self._limit = limit
        self._times: dict[Kind, int] = {}  # that each kind came before it was captured; the latest is last
        self._steps: dict[Kind, Step] = {}

    def __len__(self) -> int:
        """Return how many steps are captured."""
        return len(self._steps)

    def find(self, kind: Kind, make: Callable[[GraphCapture], Step]) -> Step | None:
        """Return the captured step of a kind, which `make` captures now if it is time to; None if the step is to be
        taken eagerly."""
        if kind in self._steps:
            return self._steps[kind]
        if self._capture is None or self._times_before(kind) < EAGER_STEPS:
            return None
        try:
            self._steps[kind] = make(self._capture)
        except Exception as error:  # an eager step works, or says better what is wrong
            self.refused, self._capture = reason_of(error), None
            self.forget()
        return self._steps.get(kind)

    def forget(self) -> None:
        """Drop every graph. The next step of a kind that had one is captured anew."""
        self._steps.clear()

    def _times_before(self, kind: Kind) -> int:
        """Count a step; return how many of its kind came before."""
        before = self._times.pop(kind, 0)
        if len(self._times) == self._limit:
            least_recent = next((each for each in self._times if each not in self._steps), None)
            if least_recent is None:
                return 0
            del self._times[least_recent]
        self._times[kind] = before + 1
        return before
