"""How much memory this process holds, and the most that it may."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from tinygrad_chat.backend import Backend, available_memory

KINDS = ("memory", "device_memory")
"""What `memory_held` tells of."""


def memory_held(backend: Backend) -> dict[str, int]:
    """Return the bytes that this process holds: `memory`, and of a GPU `device_memory`.

    What it shares, such as the pages of its data file, does not count where the system tells it apart.
    """
    info = psutil.Process().memory_info()
    held = {"memory": info.rss - getattr(info, "shared", 0)}
    device = backend.memory_held()
    return held if device is None else {**held, "device_memory": device}


def refuse_more_than_available() -> None:
    """Let the system refuse this process, from now on, memory that the machine does not have.

    Asking for too much is then a MemoryError, which can be explained, where it would be a kill without a word, of this
    process or of another. Linux alone can do so.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + available_memory()
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def peak_memory() -> int:
    """Return the most bytes that this process has held."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    try:  # Linux; what getrusage says there counts from before the program was loaded, in its parent
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10  # bytes there, KiB elsewhere
