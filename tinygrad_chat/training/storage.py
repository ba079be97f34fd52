"""Files that are whole or not there: written beside their place, forced to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tinygrad_chat.errors import StorageError, UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into a StorageError that says what to do."""
    try:
        yield
    except FileExistsError:
        raise  # no trouble with the disk: the caller's to judge
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full; free some space"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "no permission; choose another folder with --out"
        else:
            reason = error.strerror or str(error)
        raise StorageError(f"{path}: cannot be written: {reason}") from error


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process until the context ends, or the process does, however that comes about.

    Raises UsageError where another process holds it.
    """
    with (folder / ".lock").open("a") as file:
        try:
            if sys.platform == "win32":
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{folder}: another process is at work there; wait for it, or stop it") from error
        yield


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, and after a crash too."""
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        try:
            _write(partial, content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _settle(path.parent)


def write_whole_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder of files so that it appears with all of them or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            for name, content in files.items():
                _write(partial / name, content)
            _settle(partial)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _settle(path.parent)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system allows that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
