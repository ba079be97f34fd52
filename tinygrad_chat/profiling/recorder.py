"""The watcher of a step: records when each op, each backward rule and each other part began and ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.autograd import Operation
from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import Backend
from tinygrad_chat.profiling.costs import backward_cost, forward_cost


@dataclass
class Span:
    """A span of a step: `begin` and `end` as marks of the back end, and the host's times, in seconds."""

    name: str
    phase: str
    begin: Any
    host_begin: float
    end: Any = None
    host_end: float = 0.0
    flops: int = 0
    bytes: int = 0


class Recorder:
    """Collects the `spans` of what runs within `watched_ops(recorder.watch)`.

    A rule's span lasts until the next rule begins, as its gradients are accumulated in between; `close` ends the last.
    """

    def __init__(self, backend: Backend) -> None:
        self.spans: list[Span] = []
        self._backend = backend
        self._open: tuple[Span, AbstractContextManager[None]] | None = None

    @contextmanager
    def span(self, name: str, phase: str = "update", nbytes: int = 0) -> Iterator[None]:
        """Record what runs within this context as a span."""
        self._begin(name, phase).bytes = nbytes
        yield
        self.close()

    def watch(
        self, operation: Operation, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> Callable[[Any, Rule], Rule]:
        """Record an op: the watcher for `watched_ops`."""
        forward = self._begin(operation.name, "forward")

        def seen(out: Any, rule: Rule) -> Rule:
            self.close()
            cost = forward.flops, forward.bytes = forward_cost(operation.name, inputs, out)
            back = backward_cost(cost, out)

            def watched_rule(*d_outs: Any) -> Any:
                span = self._begin(operation.name, "backward")
                span.flops, span.bytes = back
                return rule(*d_outs)

            return watched_rule

        return seen

    def close(self) -> None:
        """End the span that is open, if one is."""
        if self._open is None:
            return
        span, annotation = self._open
        annotation.__exit__(None, None, None)
        span.end, span.host_end = self._backend.mark(), time.perf_counter()
        self._open = None

    def _begin(self, name: str, phase: str) -> Span:
        self.close()
        annotation = self._backend.annotate(f"{name} {phase}")
        annotation.__enter__()
        span = Span(name, phase, self._backend.mark(), time.perf_counter())
        self.spans.append(span)
        self._open = span, annotation
        return span
