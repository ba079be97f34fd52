"""How much more memory this process may use: what the machine has, and what limits leave of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 60  # bytes; cgroup version 1 reports a number near 2^63 where there is no limit


def available_memory() -> int:
    """Return the bytes that this process can still allocate before the system refuses them, or kills it.

    That is the minimum of what the machine has available, what the limits of its control groups leave (in containers
    and services), and what `ulimit -v` and `ulimit -d` leave.
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
    """Yield the bytes left in each limited control group (Linux cgroups, version 1 or 2) that the process is in."""
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
    """Yield the bytes left in a group and its ancestors. In a container, its own group's files are at the root."""
    inner = root / group.strip("/")
    for folder in [inner, *(parent for parent in inner.parents if parent.is_relative_to(root))]:
        try:
            most = int((folder / limit).read_text(encoding="ascii"))
            if most >= NO_LIMIT:
                continue  # before memory.stat, which takes the system longest
            used = int((folder / usage).read_text(encoding="ascii"))
            stat = (folder / "memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):  # no such group, or a limit of "max"
            continue
        counts = dict(line.split() for line in stat.splitlines())
        files = (int(counts.get(f"{cached}{kind}_file", 0)) for kind in ("active", "inactive"))
        yield most - used + sum(files)  # the page cache is reclaimed when memory is needed
