"""Steps of one more token for every row of a cache, captured as CUDA graphs: to replay one, the host makes a few calls
for each token, where it made one for each kernel.

What changes from step to step is sent in one packet to fixed addresses in the device's memory: the tokens, the column
that they get in the cache, and where its rows begin. What a model itself keeps of the newest token, the last embedding
and where its document begins, lies at fixed addresses, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_chat.autograd import current_mode
from tinygrad_chat.backend import Backend, CapturedByKind, GraphCapture, Packet, narrowed
from tinygrad_chat.nn import KeyValueCache, NextColumn

KEPT = ("last_embedding", "document_start")  # what a cache keeps of each row's newest token

Read = Callable[[Any, NextColumn], Any]
"""(tokens (B, 1), column) -> logits (B, V)"""


class CapturedSteps(CapturedByKind[int, "CapturedToken"]):
    """The captured steps of one model with one cache, one for each number of rows, of which there are at most
    `most_rows`. `read` computes one."""

    def __init__(self, backend: Backend, capture: GraphCapture, read: Read, *, most_rows: int) -> None:
        super().__init__(capture, limit=most_rows)
        self._backend, self._read = backend, read
        self._weights: Any = None
        self._thread: int | None = None

    def take(self, tokens: Any, cache: KeyValueCache, weights: Any) -> Any:
        """Return the logits (B, V) after tokens (B, 1), or None if the step is to be taken eagerly. `weights` are one
        of the model's arrays: if it is another one, all have moved."""
        full = cache.length >= cache.capacity
        if full or not cache.length or not current_mode().is_plain:
            return None
        cache.make_room(1)
        thread = threading.get_ident()  # whose workspace for products is part of a graph
        if weights is not self._weights or thread != self._thread:
            self.forget()
            self._weights, self._thread = weights, thread
        step = self.find(cache.rows, lambda capture: CapturedToken(self._backend, capture, self._read, cache))
        return None if step is None else step.take(tokens, cache)

    def forget(self) -> None:
        """Drop every graph: what they read will lie elsewhere."""
        for step in self._steps.values():
            step.finish()
        super().forget()


class CapturedToken:
    """A step for one number of rows as a graph, and what it reads. Raises what capturing raises."""

    def __init__(self, backend: Backend, capture: GraphCapture, read: Read, cache: KeyValueCache) -> None:
        self._backend, self._capture, rows = backend, capture, cache.rows
        memory = cache.memory[:, :, :rows]
        # Not from the capture's memory pool, in which other graphs may compute.
        self._packet = Packet(backend, ((rows, 1), np.int32), ((), np.int64), ((rows,), np.int64))
        self._tokens, self._end, self._starts = self._packet.slots
        self._kept = {name: getattr(cache, name).copy() for name in KEPT if getattr(cache, name) is not None}

        def compute() -> Any:
            column = NextColumn(memory, self._end.array, self._starts.array)
            for name, array in self._kept.items():
                setattr(column, name, array)
            logits = read(self._tokens.array, column)
            for name, array in self._kept.items():
                if getattr(column, name) is not array:
                    array[...] = getattr(column, name)
            return logits

        # A warm-up, so that kernels are loaded and the memory pool is filled. It writes to the column that the step
        # itself will write to.
        with capture.on_its_stream():
            self._send(np.zeros((rows, 1), np.int32), cache)
            warmed_up = compute()
        self._logits = warmed_up.copy()
        with capture.on_its_stream():
            self._replay = capture.capture(lambda: self._logits.__setitem__(..., compute()))

    def take(self, tokens: Any, cache: KeyValueCache) -> Any:
        """Take the step; return its logits."""
        with self._capture.on_its_stream():
            for name, array in self._kept.items():
                if getattr(cache, name) is not array:  # rows have joined or left since, or were read eagerly
                    array[...] = getattr(cache, name)
            self._send(tokens, cache)
            self._replay()
        cache.advance(1)
        for name, array in self._kept.items():
            setattr(cache, name, array)
        return self._logits.copy()  # the next step overwrites them

    def finish(self) -> None:
        """Wait for what is on its way to the device, so that its buffers may be freed."""
        self._packet.finish()

    def _send(self, tokens: Any, cache: KeyValueCache) -> None:
        on_device = isinstance(tokens, self._backend.array_type)
        if not on_device:
            self._tokens.write(narrowed(np.asarray(tokens)))
        self._end.write(cache.end)
        self._starts.write(cache.starts)
        self._packet.send()
        if on_device:
            self._tokens.array[...] = tokens
