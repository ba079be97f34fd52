"""The shared memory of MPICH's ranks, which it leaves behind where they end without taking leave of each other.

Such a segment takes memory until the machine is started again. And it is called after its job: one that Slurm begins
again would find that of its first life, and wait in it for ranks that are gone.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from pathlib import Path

from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.files import list_folder

SEGMENTS, PROCESSES = Path("/dev/shm"), Path("/proc")  # of Linux; elsewhere nothing is found
NAMES = "mpich_*"
UNUSED = 60.0
"""Seconds after which a segment is old enough to belong to nobody: between making one and using it others may look."""


def free_bytes() -> float:
    """Return how much more memory processes can share; no bound where it is not known."""
    try:
        return shutil.disk_usage(SEGMENTS).free
    except OSError:
        return math.inf


def remove_own_segments() -> None:
    """Remove those that this process uses: who has them keeps them, and nobody finds them any more."""
    for segment in segments_of("self"):
        with contextlib.suppress(OSError):
            segment.unlink()


def remove_unused_segments() -> None:
    """Remove this user's old segments that no process uses; none where it cannot be seen which processes there are."""
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
    """Return the seconds since it was made or last written to by a call."""
    try:
        return time.time() - segment.stat().st_mtime
    except OSError:
        return 0.0


def segments_of(process: str) -> set[Path]:
    """Return the segments that a process has, "self" or by its number, if it may be looked at."""
    try:
        lines = (PROCESSES / process / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    paths = (Path("/" + line.partition("/")[2]) for line in lines)
    return {path for path in paths if path.parent == SEGMENTS and path.match(NAMES)}
