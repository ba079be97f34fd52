"""Open files and list folders whose content is not trusted.

A folder of ours may contain a link that leads out of it, a pipe without a writer, or a file too large for memory. So
only regular files are opened, a link as the last component is not followed, and the size read is bounded. A path
named by a user may be a link: open it with `follow`.

Unreadable is not absent. The functions here report something as absent only if the system says so; any other reason
that it cannot be read is an OSError. A caller that mistook it for absent would overwrite what is there.
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

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)  # no such name, a file as a parent, an impossible name
NON_BLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # do not block on the other end of a pipe
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class UnfitFileError(OSError):
    """A path is not of the kind it must be, a regular file or a folder, or the file is too large to read."""


@contextmanager
def explained(path: Path, doing: str = "written") -> Iterator[None]:
    """Turn an OSError while `path` is "written" or "read" into a StorageError that says what to do."""
    try:
        yield
    except FileExistsError:
        raise  # not a disk problem: left to the caller
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
            reason = f"{error.strerror}; remove it"
        else:
            reason = error.strerror or str(error)
        raise StorageError(f"{place}: cannot be {doing}: {reason}") from error


def status_of(path: Path, *, follow: bool = False) -> os.stat_result | None:
    """Return the status of `path`, None if it does not exist. Raises OSError if that cannot be determined."""
    try:
        return path.stat(follow_symlinks=follow)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def is_there(path: Path, *, follow: bool = False) -> bool:
    """Return whether `path` exists. Raises OSError if that cannot be determined."""
    return status_of(path, follow=follow) is not None


def is_folder(path: Path, *, follow: bool = False) -> bool:
    """Return whether `path` is a folder. Raises OSError if that cannot be determined."""
    status = status_of(path, follow=follow)
    return status is not None and stat.S_ISDIR(status.st_mode)


def folder_is_there(path: Path, *, follow: bool = False) -> bool:
    """Return True if `path` is a folder, False if it does not exist.

    Raises UnfitFileError if it is something else, and OSError if that cannot be determined.
    """
    status = status_of(path, follow=follow)
    if status is not None:
        _expect_kind(stat.S_IFDIR, status, path)
    return status is not None


def list_folder(folder: Path, *, follow: bool = False) -> list[Path]:
    """Return a folder's entries, sorted by name; none if it does not exist.

    Raises OSError if it cannot be read, UnfitFileError if it is not a folder.
    """
    if not folder_is_there(folder, follow=follow):
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries)


def open_plain(path: Path, mode: str = "rb", *, most: int | None = None, follow: bool = False) -> IO[Any]:
    """Open a file, in any of Python's modes.

    Raises OSError if it cannot be opened, UnfitFileError if it is something else, such as a pipe or a link, or longer
    than `most` bytes.
    """
    status = status_of(path, follow=follow)
    if status is not None:
        _expect_fit(status, path, most)

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | NON_BLOCKING | (0 if follow else NO_LINK), 0o666)
        try:
            _expect_fit(os.fstat(descriptor), path, most)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    return open(path, mode, opener=opener)


def expect_plain(path: Path, *, most: int | None = None, follow: bool = False) -> None:
    """Raise OSError like `open_plain`, also for an absent file; for files that a library opens by name."""
    _expect_fit(path.stat(follow_symlinks=follow), path, most)


def read_plain(path: Path, *, most: int, follow: bool = False) -> bytes:
    """Return a file's content. Raises OSError like `open_plain`."""
    with open_plain(path, most=most, follow=follow) as file:
        return file.read(min(os.fstat(file.fileno()).st_size, most))  # it may be growing


def plain_lines(path: Path, *, most: int, longest: int) -> Iterator[bytes]:
    """Yield the lines of a file with their newlines; of a longer line, only the last `longest` bytes.

    So even a huge file without newlines takes little memory. Raises OSError like `open_plain`.
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
