"""Folders that one process holds: as long as it lives, and whatever ends it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tinygrad_chat.errors import StorageError, UsageError
from tinygrad_chat.files.opening import explained, open_plain

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"  # in the folder that is held; in it the number of the process that held it last
LONGEST_NUMBER = 20  # digits

PATIENCE = 0.4  # seconds; `is_locked` holds a folder for a moment, and a holder's number comes a moment after its lock
LOCKED_BYTE = 1 << 20  # Windows keeps others from reading what is locked; the holder's number stands before it


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process until the context ends, or the process does, however that comes about.

    Raises UsageError, with the other's number, where another process holds it, and StorageError where its lock can be
    none: nothing is written over but a number.
    """
    with explained(folder):
        file = open_plain(folder / LOCK, "a+b")
    with file:
        with explained(folder):
            locked = try_lock(file)
            until = time.monotonic() + PATIENCE
            while not locked and time.monotonic() < until:
                time.sleep(PATIENCE / 20)
                locked = try_lock(file)
        if not locked:
            raise _held(folder, file)
        with explained(folder):
            if not (_number(file) or os.fstat(file.fileno()).st_size == 0):
                raise StorageError(f"{folder / LOCK}: is no lock, as it holds more than a number; take it away")
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        yield


def expect_free(folder: Path) -> None:
    """Raise UsageError, with its number, where a process holds `folder`, and StorageError where that cannot be told."""
    with explained(folder, "read"):
        if is_locked(folder):
            with open_plain(folder / LOCK) as file:
                raise _held(folder, file)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds `folder` by `exclusive_lock`; nothing is written there.

    Raises OSError where that cannot be told.
    """
    try:
        file = open_plain(folder / LOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    with file, contextlib.suppress(OSError):
        return not try_lock(file, shared=True)
    return False


def try_lock(file: IO, *, shared: bool = False) -> bool:
    """Lock an open file unless another process has, until it is closed here; return whether that went well.

    A `shared` lock keeps out exclusive ones only, and also suits a file that we may only read.
    """
    try:
        if sys.platform == "win32":
            file.seek(LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _held(folder: Path, file: IO[bytes]) -> UsageError:
    number = _number(file)
    holder = f"process {number}" if number else "another process"
    return UsageError(f"{folder}: {holder} is at work there; wait for it, or stop it")


def _number(file: IO[bytes]) -> str:
    """Return the number that a lock holds; empty where it holds none, or anything else."""
    file.seek(0)
    found = file.read(LONGEST_NUMBER + 1)
    return found.decode() if found.isdigit() and len(found) <= LONGEST_NUMBER else ""
