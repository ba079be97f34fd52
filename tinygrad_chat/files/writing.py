"""Files that are whole or not there: written beside their place, forced to the disk, then renamed.

What is being written, or removed, is called `.NAME.tgc-partial` until it is done, with something of its own before the
end where several may write it at once. Who clears up knows by that end what is ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tinygrad_chat.files.opening import explained, is_folder, is_there, list_folder, open_plain

PARTIAL = ".tgc-partial"
"""Ends the name of what is not whole yet, and of nothing that other programs write."""


def is_partial(path: Path) -> bool:
    """Return whether a path is that of something of ours that is not whole yet."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def remove_partials(folder: Path, *, follow: bool = False) -> None:
    """Remove what a process that was killed had begun to write or to remove in `folder`."""
    with explained(folder):
        for path in list_folder(folder, follow=follow):
            if is_partial(path):
                _remove(path)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, and after a crash too.

    Several may do so at the same time: what stands there is whole, by one of them.
    """
    with explained(path):
        try:
            _write_beside(path, content)
        except FileNotFoundError:  # who begins to train in the folder has taken what was half written for left over
            _write_beside(path, content)
        fsync_folder(path.parent)


@contextmanager
def partial_file(path: Path) -> Iterator[IO[bytes]]:
    """Provide a file for what is too large to be held, which gets its name at the end, or is removed where it fails."""
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        fsync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _write_beside(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PARTIAL}")
    try:
        _write(partial, content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_folder_atomic(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files so that it appears with all of them or not at all; one that stood there goes before."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    with explained(path):
        _remove(partial)
        try:
            partial.mkdir()  # not its parents: a folder that was moved away stays away
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
    partial = Path(tempfile.mkdtemp(prefix=".", suffix=PARTIAL, dir=parent))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def keep_aside(path: Path, aside: Path) -> None:
    """Let what a file holds now stay under a second name when it is written anew; where the disk has no second names
    for files, as a copy."""
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:
        with open_plain(path) as file, open_plain(aside, "xb") as copy:
            shutil.copyfileobj(file, copy)


def rename_folder_atomic(partial: Path, path: Path) -> None:
    """Name a folder whose files were forced to the disk; a folder that stood at `path` goes before."""
    fsync_folder(partial)
    if is_there(path):
        remove_folder_atomic(path)
    partial.rename(path)
    fsync_folder(path.parent)


def remove_folder_atomic(path: Path) -> None:
    """Remove a folder so that it is whole or not there: it loses its name first."""
    removed = path.with_name(f".{path.name}.removed{PARTIAL}")
    with explained(path):
        _remove(removed)
        path.rename(removed)
        with contextlib.suppress(OSError):  # it has lost its name: who holds the folder next removes the rest
            _remove(removed)


def fsync_file(path: Path) -> None:
    """Force to the disk what was appended to a file."""
    with explained(path), open_plain(path, "rb+") as file:
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:  # over nothing, and through no link
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


def _remove(path: Path) -> None:
    """Remove what stands at `path`, whatever it is: of a link the link alone."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
