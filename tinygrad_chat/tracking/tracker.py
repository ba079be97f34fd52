"""What a tracker must do. One that lacks any of it cannot be opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from tinygrad_chat.training.run import Run

PROJECT = "tinygrad_chat"
"""Under what name all runs are filed, where a tracker has projects."""


class Tracker(ABC):
    """A library that shows runs, opened for one of them."""

    library: ClassVar[str]
    """What to import, and to install."""
    identity: str
    """By what name or number the library knows the run."""
    how_to_look: str
    """The command or address that shows the run."""
    last_step: int | None = None
    """The last step that it has from earlier starts of the run, where the library says so."""

    @abstractmethod
    def __init__(self, run: Run, identity: str | None) -> None:
        """Open it for `run`, which goes on from its step; `identity` is what an earlier start of the run has left."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a line of the log."""

    @abstractmethod
    def show_text(self, step: int, text: str) -> None:
        """Send the text that the model wrote after `step` updates; it may be followed by the numbers of that step."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Send what is left."""


class RevisableTracker(Tracker):
    """A tracker from which points can be taken back when their steps come again: after a resume or a rollback.

    The others are sent each step once, so they keep what was sent first.
    """

    @abstractmethod
    def take_back(self, step: int) -> None:
        """Forget what was sent for `step` and later."""
