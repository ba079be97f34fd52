"""How much memory this process holds, and a limit on it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from tinygrad_chat.backend import Backend, available_memory

KINDS = ("memory", "device_memory")
"""The keys of `memory_held`."""


def memory_held(backend: Backend) -> dict[str, int]:
    """Return the bytes that this process holds: `memory` and, with a GPU, `device_memory`.

    Shared pages, such as those of its memory-mapped data file, do not count if the system reports them.
    """
    info = psutil.Process().memory_info()
    held = {"memory": info.rss - getattr(info, "shared", 0)}
    device = backend.memory_held()
    return held if device is None else {**held, "device_memory": device}


def refuse_more_than_available() -> None:
    """Limit this process to the memory that the machine has, on Linux only.

    Allocating too much then raises a MemoryError, which can be explained. Otherwise the system would silently kill this
    process or another.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + available_memory()
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    try:  # Linux, where getrusage would include the parent's memory from before the program was loaded
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10  # bytes there, KiB elsewhere
