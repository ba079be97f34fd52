"""Buckets of the gradient, which are sent to other ranks while the backward pass computes the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

from tinygrad_chat.autograd import Node, PendingGradient
from tinygrad_chat.autograd.sweep import deliver_to_leaf
from tinygrad_chat.nn import Parameters
from tinygrad_chat.parallel.communicator import Communicator

BUCKET = 1 << 20
"""The minimum elements of a bucket: enough that sending them takes much longer than a message's latency."""


class GradientBuckets:
    """Slices of the flat gradient, each of whole parameters, that are summed over ranks as soon as they are complete.

    The first backward pass counts how many gradients each bucket receives (a weight that is used twice gets two). All
    later passes must deliver as many. Every rank has the same graph, so all ranks start their sums in the same order.
    """

    def __init__(
        self, parameters: Parameters, shares: Sequence[slice], communicator: Communicator, into: Any, size: int = BUCKET
    ) -> None:
        self._gradient, self._communicator = parameters.gradient, communicator
        self._shares, self._into = shares, into
        self._spans: list[slice] = []
        self._bucket_of: dict[Node, int] = {}
        for name, span in parameters.spans():
            if not self._spans or self._spans[-1].stop - self._spans[-1].start >= size:
                self._spans.append(span)
            self._spans[-1] = slice(self._spans[-1].start, span.stop)
            self._bucket_of[parameters[name]] = len(self._spans) - 1
        self._expected: list[int] | None = None
        self._delivered = [0] * len(self._spans)
        self._under_way: dict[int, Callable[[], None]] = {}
        # Those of one rule: the sweep holds them until it has finished them.
        self._unfinished: WeakSet[PendingGradient] = WeakSet()

    def deliver(self, leaf: Node, gradient: Any) -> None:
        """Accumulate a parameter's gradient, as the backward pass's `deliver`, and send its bucket once complete."""
        deliver_to_leaf(leaf, gradient)
        if isinstance(gradient, PendingGradient):
            self._unfinished.add(gradient)
        bucket = self._bucket_of.get(leaf)
        if bucket is None:
            return
        self._delivered[bucket] += 1
        if self._expected and self._delivered[bucket] == self._expected[bucket]:
            self._send(bucket)

    def finish(self) -> None:
        """Send the remaining buckets, and wait until this rank's share of the sum is complete."""
        expected = self._expected or self._delivered
        if self._delivered != expected:
            raise RuntimeError(f"buckets: expected {expected} gradients in a sweep, received {self._delivered}")
        for bucket in range(len(self._spans)):
            if bucket not in self._under_way:
                self._send(bucket)
        for wait in self._under_way.values():
            wait()
        self._expected, self._delivered = expected, [0] * len(self._spans)
        self._under_way.clear()

    def _send(self, bucket: int) -> None:
        for gradient in list(self._unfinished):
            gradient.finish()
        span = self._spans[bucket]
        pieces = [_overlap(share, span) for share in self._shares]
        own, first = pieces[self._communicator.rank], self._shares[self._communicator.rank].start
        self._under_way[bucket] = self._communicator.start_reduce_scatter(
            self._gradient[span],
            [slice(piece.start - span.start, piece.stop - span.start) for piece in pieces],
            self._into[own.start - first : own.stop - first],
        )


def _overlap(share: slice, span: slice) -> slice:
    """Return the part of a share that lies in a span, or an empty slice at the span's nearer end."""
    start = min(max(share.start, span.start), span.stop)
    return slice(start, max(start, min(share.stop, span.stop)))
