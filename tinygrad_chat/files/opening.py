"""How files are opened and folders listed that may come from anywhere.

A folder of ours may hold a link that leads out of it, a pipe that nobody writes to, or a file that no memory could
hold. So only regular files are opened, links in the last place are not followed, and reading has a bound. What a user
names may be a link: such a path is opened with `follow`.

Unreadable is not absent. Each function here says that something is not there only where the system says so. Whatever
else keeps it from being read is an OSError: who took it for absence would begin anew over what is there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tinygrad_chat.errors import StorageError

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)  # no such name, a file on the way to it, no possible name
AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # no waiting for the other end of a pipe
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class UnfitFileError(OSError):
    """What stands there is not what it must be, a regular file or a folder, or is longer than can be read."""


@contextmanager
def explained(path: Path, doing: str = "written") -> Iterator[None]:
    """Turn an OSError while `path` is "written" or "read" into a StorageError that says what to do."""
    try:
        yield
    except FileExistsError:
        raise  # no trouble with the disk: the caller's to judge
    except OSError as error:
        unfit = isinstance(error, UnfitFileError)
        place = error.filename if error.filename and (unfit or doing == "read") else path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full; free some space"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "no permission; choose another folder, or change its permissions"
        elif error.errno in (errno.ENOTDIR, errno.ENOENT):
            reason = f"{error.strerror}; choose another folder"
        elif unfit:
            reason = f"{error.strerror}; take it away"
        else:
            reason = error.strerror or str(error)
        raise StorageError(f"{place}: cannot be {doing}: {reason}") from error


def status_of(path: Path, *, follow: bool = False) -> os.stat_result | None:
    """Return what stands at `path`, or None where nothing does. Raises OSError where that cannot be told."""
    try:
        return path.stat(follow_symlinks=follow)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def is_there(path: Path, *, follow: bool = False) -> bool:
    """Return whether something stands at `path`. Raises OSError where that cannot be told."""
    return status_of(path, follow=follow) is not None


def is_folder(path: Path, *, follow: bool = False) -> bool:
    """Return whether a folder stands at `path`. Raises OSError where that cannot be told."""
    status = status_of(path, follow=follow)
    return status is not None and stat.S_ISDIR(status.st_mode)


def folder_is_there(path: Path, *, follow: bool = False) -> bool:
    """Return whether a folder stands at `path`, or nothing does.

    Raises UnfitFileError where something else does, and OSError where that cannot be told.
    """
    status = status_of(path, follow=follow)
    if status is not None:
        _expect_kind(stat.S_IFDIR, status, path)
    return status is not None


def list_folder(folder: Path, *, follow: bool = False) -> list[Path]:
    """Return what a folder holds, by name; nothing where there is no folder.

    Raises OSError where it cannot be read, UnfitFileError where something else stands there.
    """
    if not folder_is_there(folder, follow=follow):
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries)


def open_plain(path: Path, mode: str = "rb", *, most: int | None = None, follow: bool = False) -> IO[Any]:
    """Open a file, in any of Python's modes.

    Raises OSError where it cannot be opened, UnfitFileError where it is something else, such as a pipe or a link, or
    longer than `most` bytes.
    """
    status = status_of(path, follow=follow)
    if status is not None:
        _expect_fit(status, path, most)

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | AT_ONCE | (0 if follow else NO_LINK), 0o666)
        try:
            _expect_fit(os.fstat(descriptor), path, most)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    return open(path, mode, opener=opener)


def expect_plain(path: Path, *, most: int | None = None, follow: bool = False) -> None:
    """Raise OSError as `open_plain` does, for a file that a library will open by its name, or that is not there."""
    _expect_fit(path.stat(follow_symlinks=follow), path, most)


def read_plain(path: Path, *, most: int, follow: bool = False) -> bytes:
    """Return what is in a file. Raises OSError as `open_plain` does."""
    with open_plain(path, most=most, follow=follow) as file:
        return file.read(min(os.fstat(file.fileno()).st_size, most))  # it may grow meanwhile


def plain_lines(path: Path, *, most: int, longest: int) -> Iterator[bytes]:
    """Yield the lines of a file, each with its end; of one of more than `longest` bytes only the last of them.

    Raises OSError as `open_plain` does. So a file that holds no lines, however long, takes little memory.
    """
    with open_plain(path, most=most) as file:
        line = b""
        while part := file.readline(longest):
            line = (line + part)[-longest:]
            if line.endswith(b"\n"):
                yield line
                line = b""
        if line:
            yield line


def _expect_fit(status: os.stat_result, path: Path, most: int | None) -> None:
    _expect_kind(stat.S_IFREG, status, path)
    if most is not None and status.st_size > most:
        raise UnfitFileError(errno.EFBIG, f"{status.st_size >> 20:,} MiB is more than there is room for", str(path))


def _expect_kind(kind: int, status: os.stat_result, path: Path) -> None:
    found = stat.S_IFMT(status.st_mode)
    if found != kind:
        received = KINDS.get(found, "a device")
        raise UnfitFileError(errno.EINVAL, f"expected {KINDS[kind]}, received {received}", str(path))
