"""Files that are whole or not there: written beside their place, forced to the disk, then renamed.

What is being written, or removed, is called `.NAME.partial` until it is done. What can be made again lies in
`cache_folder`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

import platformdirs

from tinygrad_chat.errors import StorageError, UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PATIENCE = 0.4  # seconds; `is_locked` holds a folder for a moment, and a holder's number comes a moment after its lock
LOCKED_BYTE = 1 << 20  # Windows keeps others from reading what is locked; the holder's number stands before it

CACHE_VARIABLE = "TINYGRAD_CHAT_CACHE"


def user_path(name: str | os.PathLike[str]) -> Path:
    """Return the path that a user names: `~` and `~somebody` are home folders, where there is somebody of that name.

    >>> user_path("~/text.txt") == Path.home() / "text.txt", user_path("~draft.txt").name
    (True, '~draft.txt')
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser fails for a name that is no user's


def cache_folder() -> Path:
    """Return where things are kept that can be made again: what TINYGRAD_CHAT_CACHE names, or the user's cache."""
    return user_path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("tinygrad_chat"))


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
            reason = "no permission; choose another folder, or change its permissions"
        elif error.errno in (errno.ENOTDIR, errno.ENOENT):
            reason = f"{error.strerror}; choose another folder"
        else:
            reason = error.strerror or str(error)
        raise StorageError(f"{path}: cannot be written: {reason}") from error


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process until the context ends, or the process does, however that comes about.

    Raises UsageError, with the other's number, where another process holds it.
    """
    with explained(folder):
        file = (folder / ".lock").open("a+")
    with file:
        with explained(folder):
            locked = try_lock(file)
            until = time.monotonic() + PATIENCE
            while not locked and time.monotonic() < until:
                time.sleep(PATIENCE / 20)
                locked = try_lock(file)
        if not locked:
            raise UsageError(f"{folder}: process {_holder(file)} is at work there; wait for it, or stop it")
        with explained(folder):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def expect_free(folder: Path) -> None:
    """Raise UsageError, with its number, where a process holds `folder`."""
    if is_locked(folder):
        with (folder / ".lock").open() as file:
            raise UsageError(f"{folder}: process {_holder(file)} is at work there; wait for it, or stop it")


def is_locked(folder: Path) -> bool:
    """Return whether a process holds `folder` by `exclusive_lock`; nothing is written there."""
    try:
        file = (folder / ".lock").open()
    except OSError:
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


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read() or "another"


def remove_partials(folder: Path) -> None:
    """Remove what a process that was killed had begun to write or to remove in `folder`."""
    for partial in folder.glob(".*.partial"):
        with explained(partial):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def expect_plain(path: Path, *, most: int) -> None:
    """Raise OSError where there is no file, or something else such as a pipe, or one longer than `most` bytes."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "expected a file", str(path))
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"{status.st_size >> 20:,} MiB is more than there is room for", str(path))


def read_plain(path: Path, *, most: int) -> bytes:
    """Return what is in a file. Raises OSError as `expect_plain` does."""
    expect_plain(path, most=most)
    return path.read_bytes()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, and after a crash too."""
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        try:
            _write(partial, content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        fsync_folder(path.parent)


def write_folder_atomic(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files so that it appears with all of them or not at all; one that stood there goes before."""
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            for name, content in files.items():
                _write(partial / name, content)
            rename_folder_atomic(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Provide a new folder in `parent`, for files too large for `write_folder_atomic`.

    Give it its name by `rename_folder_atomic`; one that has none at the end is removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=parent))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def rename_folder_atomic(partial: Path, path: Path) -> None:
    """Name a folder whose files were forced to the disk; a folder that stood at `path` goes before."""
    fsync_folder(partial)
    if path.exists():
        remove_folder_atomic(path)
    partial.rename(path)
    fsync_folder(path.parent)


def remove_folder_atomic(path: Path) -> None:
    """Remove a folder so that it is whole or not there: it loses its name first."""
    removed = path.with_name(f".{path.name}.removed.partial")
    with explained(path):
        shutil.rmtree(removed, ignore_errors=True)
        path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def fsync_file(path: Path) -> None:
    """Force to the disk what was appended to a file."""
    with explained(path), path.open("rb+") as file:
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system allows that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
