"""Steps of one more token for every row of a cache, as recordings (CUDA graphs): the host makes a few calls for each
token, where it made one for each kernel.

What changes from step to step is sent in one packet to fixed addresses in the device's memory: the tokens, the column
that they get in the cache, and where its rows begin. What a model itself keeps of the newest token, the last embedding
and where its document begins, lies at fixed addresses, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_chat.autograd import current_mode
from tinygrad_chat.backend import Backend, Packet, Recorder, narrowed
from tinygrad_chat.nn import KeyValueCache, NextColumn

EAGER_STEPS = 2  # of so many rows before a step is recorded: kernels are compiled, and a short answer is not worth it
KEPT = ("last_embedding", "document_start")  # what a cache keeps of each row's newest token

Read = Callable[[Any, NextColumn], Any]
"""(tokens (B, 1), column) -> logits (B, V)"""


class RecordedSteps:
    """The recorded steps of one model with one cache, one for each number of rows.

    `read` computes a step. After an error while one is recorded, such as a lack of memory, all steps stay eager, and
    `refused` is that error in one line.
    """

    def __init__(self, backend: Backend, recorder: Recorder, read: Read) -> None:
        self.refused: str | None = None
        self._backend, self._recorder, self._read = backend, recorder, read
        self._memory: Any = None
        self._weights: Any = None
        self._seen: dict[int, int] = {}
        self._steps: dict[int, RecordedStep] = {}

    def take(self, tokens: Any, cache: KeyValueCache, weights: Any) -> Any:
        """Return the logits (B, V) after tokens (B, 1), or None if the step is to be taken eagerly. `weights` are what
        the model's are a part of, once they are in one place: whoever moves them ends what has been recorded."""
        mode, rows = current_mode(), cache.rows
        if self.refused or mode.kernels is not None or mode.watcher is not None:
            return None
        if not 0 < cache.length < cache.capacity:
            return None
        cache.make_room(1)
        memory = cache.memory
        if memory is not self._memory or weights is not self._weights:
            self._memory, self._weights = memory, weights
            self._seen.clear()
            self._steps.clear()
        if rows not in self._steps:
            self._seen[rows] = self._seen.get(rows, 0) + 1
            if self._seen[rows] <= EAGER_STEPS:
                return None
            try:
                self._steps[rows] = RecordedStep(self._backend, self._recorder, self._read, cache)
            except Exception as error:  # an eager step works, or says better what is wrong
                self.refused = " ".join(str(error).split()) or type(error).__name__
                return None
        return self._steps[rows].take(tokens, cache)


class RecordedStep:
    """A recording, and what it reads. Raises what recording raises."""

    def __init__(self, backend: Backend, recorder: Recorder, read: Read, cache: KeyValueCache) -> None:
        rows, self._recorder = cache.rows, recorder
        memory = cache.memory[:, :, :rows]
        kept = {name: getattr(cache, name) for name in KEPT if getattr(cache, name) is not None}
        with recorder.apart():
            self._packet = Packet(backend, ((rows, 1), np.int32), ((), np.int64), ((rows,), np.int64))
            self._tokens, self._end, self._starts = self._packet.slots
            self._kept = {name: array.copy() for name, array in kept.items()}
            self._send(np.zeros((rows, 1), np.int32), cache)

            def compute() -> Any:
                column = NextColumn(memory, self._end.array, self._starts.array)
                vars(column).update(self._kept)
                logits = read(self._tokens.array, column)
                for name, array in self._kept.items():
                    if getattr(column, name) is not array:
                        array[...] = getattr(column, name)
                return logits

            # A rehearsal, so that kernels are loaded and the memory pool is filled. It writes to the column that the
            # step itself will write to.
            self._logits = compute().copy()
            self._repeat = recorder.record(lambda: self._logits.__setitem__(..., compute()))

    def take(self, tokens: Any, cache: KeyValueCache) -> Any:
        """Take the step; return its logits."""
        with self._recorder.apart():
            for name, array in self._kept.items():
                if getattr(cache, name) is not array:  # rows have joined or left since, or were read eagerly
                    array[...] = getattr(cache, name)
            self._send(tokens, cache)
            self._repeat()
        cache.advance(1)
        vars(cache).update(self._kept)
        return self._logits.copy()  # the next step overwrites them

    def _send(self, tokens: Any, cache: KeyValueCache) -> None:
        on_host = isinstance(tokens, np.ndarray)
        if on_host:
            self._tokens.write(narrowed(tokens))
        self._end.write(cache.end)
        self._starts.write(cache.starts)
        self._packet.send()
        if not on_host:
            self._tokens.array[...] = tokens
