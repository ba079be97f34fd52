"""Clean up the shared memory of MPICH's ranks, which stays behind when they end without shutting MPI down.

A segment takes memory until the machine restarts. It is named after its job: a job that Slurm restarts would find the
segment of its first start, and wait in it for ranks that are gone.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from pathlib import Path

from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.files import list_folder

SEGMENTS, PROCESSES = Path("/dev/shm"), Path("/proc")  # Linux only; elsewhere nothing is found
NAMES = "mpich_*"
UNUSED = 60.0
"""Seconds after which an unused segment counts as left behind: a new one may not be in use yet."""


def free_bytes() -> float:
    """Return the free bytes of shared memory; infinity if unknown."""
    try:
        return shutil.disk_usage(SEGMENTS).free
    except OSError:
        return math.inf


def remove_own_segments() -> None:
    """Unlink the segments that this process uses: processes that have mapped them keep them, no other finds them."""
    for segment in segments_of("self"):
        with contextlib.suppress(OSError):
            segment.unlink()


def remove_unused_segments() -> None:
    """Remove this user's old segments that no process uses; none if processes cannot be listed."""
    try:
        segments, processes = list_folder(SEGMENTS), list_folder(PROCESSES)
    except (OSError, TinygradChatError):
        return
    old = {segment for segment in segments if segment.match(NAMES) and _age(segment) > UNUSED}
    numbers = [process.name for process in processes if process.name.isdigit()]
    if not old or not numbers:
        return
    used = set[Path]().union(*map(segments_of, numbers))
    for segment in old - used:
        with contextlib.suppress(OSError):  # another user's, or removed by another rank
            segment.unlink()


def _age(segment: Path) -> float:
    """Return the seconds since it was created or last written to by a system call."""
    try:
        return time.time() - segment.stat().st_mtime
    except OSError:
        return 0.0


def segments_of(process: str) -> set[Path]:
    """Return the segments that a process ("self", or its ID) uses; none if access is denied."""
    try:
        lines = (PROCESSES / process / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    paths = (Path("/" + line.partition("/")[2]) for line in lines)
    return {path for path in paths if path.parent == SEGMENTS and path.match(NAMES)}
