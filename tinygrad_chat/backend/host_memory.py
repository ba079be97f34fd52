"""How much memory this process may still take: what the machine has, and what limits leave of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 60  # bytes; version 1 writes a number near 2^63 where there is no limit


def available_memory() -> int:
    """Return the bytes that this process can still take before the system refuses them, or kills it.

    That is the least of what the machine has available, what the limits of its control groups leave, as containers and
    services have them, and what `ulimit -v` and `ulimit -d` leave.
    """
    left = [psutil.virtual_memory().available, *_left_by_control_groups(), *_left_by_limits()]
    return max(0, min(left))


def _left_by_limits() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    held = psutil.Process().memory_info()
    for kind, used in ((resource.RLIMIT_AS, held.vms), (resource.RLIMIT_DATA, getattr(held, "data", 0))):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit - used


def _left_by_control_groups(memberships: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> Iterator[int]:
    """Yield what each limited control group that the process is in has left, of Linux's versions 1 and 2."""
    try:
        lines = memberships.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield from _left_up_to(root, group, limit="memory.max", usage="memory.current", cached="")
        elif "memory" in controllers.split(","):
            names = {"limit": "memory.limit_in_bytes", "usage": "memory.usage_in_bytes", "cached": "total_"}
            yield from _left_up_to(root / "memory", group, **names)


def _left_up_to(root: Path, group: str, *, limit: str, usage: str, cached: str) -> Iterator[int]:
    """Yield what a group and those around it have left. In a container, the files of its own group are the root's."""
    inner = root / group.strip("/")
    for folder in [inner, *(parent for parent in inner.parents if parent.is_relative_to(root))]:
        try:
            most = int((folder / limit).read_text(encoding="ascii"))
            used = int((folder / usage).read_text(encoding="ascii"))
            stat = (folder / "memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):  # no such group, or a limit of "max"
            continue
        if most < NO_LIMIT:
            counts = dict(line.split() for line in stat.splitlines())
            files = (int(counts.get(f"{cached}{kind}_file", 0)) for kind in ("active", "inactive"))
            yield most - used + sum(files)  # pages of files are given up for what has more need of them
