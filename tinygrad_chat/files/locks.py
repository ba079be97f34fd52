"""Exclusive locks on folders. A lock is released when its process ends, for whatever reason."""

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

LOCK = ".lock"  # in the locked folder; contains the ID of the last process that held it
LONGEST_NUMBER = 20  # digits

PATIENCE = 0.4  # seconds; `is_locked` locks a folder for a moment, and a process writes its ID a moment after locking
LOCKED_BYTE = 1 << 20  # Windows stops others from reading locked bytes; the holder's ID comes before this one


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process until the context or the process ends.

    Raises UsageError, with the holder's ID, if another process holds it, and StorageError if its lock file contains
    anything but a process ID: that is never overwritten.
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
                raise StorageError(f"{folder / LOCK}: is not a lock file, as it holds more than a number; remove it")
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        yield


def expect_free(folder: Path) -> None:
    """Raise UsageError, with its ID, if a process has locked `folder`, and StorageError if that is unknown."""
    with explained(folder, "read"):
        if is_locked(folder):
            with open_plain(folder / LOCK) as file:
                raise _held(folder, file)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds `folder` with `exclusive_lock`. Writes nothing.

    Raises OSError if the lock file cannot be opened.
    """
    try:
        file = open_plain(folder / LOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    with file, contextlib.suppress(OSError):
        return not try_lock(file, shared=True)
    return False


def try_lock(file: IO, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed, unless another process has locked it; return whether that succeeded.

    A `shared` lock only excludes exclusive ones, and also works for a file that is open for reading only.
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
    return UsageError(f"{folder}: {holder} is using it; wait for it, or stop it")


def _number(file: IO[bytes]) -> str:
    """Return the process ID in a lock file, "" if it is empty or contains anything else."""
    file.seek(0)
    found = file.read(LONGEST_NUMBER + 1)
    return found.decode() if found.isdigit() and len(found) <= LONGEST_NUMBER else ""
