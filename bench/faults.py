"""Faults on purpose: at a call to the operating system of one's choice the process dies, or the call fails.

Python reaches the system through functions written in C, and tells a profile function of each such call before it is
made. So a fault can be put before every single one, without touching the code under test.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SYSTEM_MODULES = {"posix", "nt", "_io", "io", "fcntl", "msvcrt"}
AMONG_THEM = ("fspath", "getpid", "_path_split", "_path_norm")  # functions that do not reach it, or cannot fail


@contextmanager
def at_system_call(number: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Within this context call `act` just before the number-th call to the system; the list names those made."""
    made: list[str] = []

    def profile(_frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and _reaches_the_system(function):
            made.append(function.__name__)
            if len(made) == number:
                act()

    sys.setprofile(profile)
    try:
        yield made
    finally:
        sys.setprofile(None)


def _reaches_the_system(function: Any) -> bool:
    module = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
    return module in SYSTEM_MODULES and not function.__name__.startswith(AMONG_THEM)


def count_system_calls(work: Callable[[], object]) -> int:
    """Return how many calls to the system `work` makes."""
    with at_system_call(0, lambda: None) as made:
        work()
    return len(made)


def fail() -> None:
    """Fail as a call does on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def kill_at_system_call(number: int, work: Callable[[], object]) -> bool:
    """Do `work` in a copy of this process that is killed before its number-th call to the system.

    Return whether it was; not, where `work` was done by then. Not on Windows, which cannot copy a process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of copying a process with threads: the copy uses none
        child = os.fork()
    if child == 0:
        with at_system_call(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError(f"the work failed instead of being killed, with exit code {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)
