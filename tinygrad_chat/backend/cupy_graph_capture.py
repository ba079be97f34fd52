"""CUDA graphs, captured by CuPy."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tinygrad_chat.backend.graph_capture import GraphCapture


class CupyGraphCapture(GraphCapture):
    """Captures work on a stream of its own, in a memory pool that serves nothing else.

    What the work allocates and frees while it is captured, the pool hands out again to such work only. So replays, one
    after another on one stream, never meet an array in use.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._pool = cupy.cuda.MemoryPool()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._has_captured = False

    @contextmanager
    def on_its_stream(self) -> Iterator[None]:
        """Wait for the current stream first, on the device, and let it wait at the end."""
        cuda = self._cupy.cuda
        outside = cuda.get_current_stream()
        self._stream.wait_event(outside.record())
        try:
            with cuda.using_allocator(self._pool.malloc), self._stream:
                yield
        finally:
            outside.wait_event(self._stream.record())

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture `work` as a graph; return what launches it."""
        if not self._has_captured:  # room for what it will hold
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._has_captured = True
        self._stream.begin_capture()
        try:
            with _no_collection():
                work()
        except BaseException:
            with suppress(Exception):  # the capture may have been invalidated; the error that counts is the first
                self._stream.end_capture()
            raise
        return functools.partial(self._stream.end_capture().launch, self._stream)

    def memory_held(self) -> int:
        """Return the bytes that the pool has allocated."""
        return self._pool.total_bytes()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Free nothing that a cycle of references holds within this context: that would wait for the device, which must not
    happen while work is captured."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
