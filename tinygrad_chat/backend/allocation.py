"""How the C library allocates memory for large arrays."""

from __future__ import annotations

import ctypes
import functools
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc to keep the memory of freed arrays for reuse; on other platforms do nothing.

    By default it returns each large array to the kernel at once, and the next one of the same size pays a page fault
    for every 4 KiB. A training step frees and allocates the same sizes again and again: keeping them saves a tenth to a
    half of its time (docs/log.md has the figures), at the same peak memory.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Arrays below 1 GiB come from the heap, whose top is not trimmed either. Old versions refuse more than 32 MiB.
        if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
            mallopt(M_MMAP_THRESHOLD, 1 << 25)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)  # one heap for all threads; further heaps return what they free to the kernel
