"""Atomic writes: a file is written under a temporary name beside its place, synced to disk, then renamed.

Anything being written or removed is named `.NAME.tgc-partial` meanwhile, with a random part before the suffix where
several processes may write at once. The suffix marks leftovers of ours for removal.
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
"""Suffix of the names of incomplete files and folders; no other program uses it."""


def is_partial(path: Path) -> bool:
    """Return whether a path names an incomplete file or folder of ours."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def remove_partials(folder: Path, *, follow: bool = False) -> None:
    """Remove what a killed process left half written or half removed in `folder`."""
    with explained(folder):
        for path in list_folder(folder, follow=follow):
            if is_partial(path):
                _remove(path)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically: readers find either the old content or the new, even after a crash.

    Several processes may do so at the same time; one of them wins, and the file is complete.
    """
    with explained(path):
        try:
            _write_beside(path, content)
        except FileNotFoundError:  # a run that starts in this folder took our partial file for a leftover
            _write_beside(path, content)
        fsync_folder(path.parent)


@contextmanager
def partial_file(path: Path) -> Iterator[IO[bytes]]:
    """Provide a file for content too large for memory. It is renamed to `path` at the end, or removed on failure."""
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
    """Write a folder of files that appears with all of them or not at all. An existing one is removed first."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    with explained(path):
        _remove(partial)
        try:
            partial.mkdir()  # without parents: do not recreate a folder that was moved away
            for name, content in files.items():
                _write(partial / name, content)
            rename_folder_atomic(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Provide a new folder in `parent`, for files too large for `write_folder_atomic`.

    Name it with `rename_folder_atomic`; if that is not done by the end, it is removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".", suffix=PARTIAL, dir=parent))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def keep_aside(path: Path, aside: Path) -> None:
    """Keep a file's current content under a second name when the file is rewritten: as a hard link or, if the file
    system has none, as a copy."""
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:
        with open_plain(path) as file, open_plain(aside, "xb") as copy:
            shutil.copyfileobj(file, copy)


def rename_folder_atomic(partial: Path, path: Path) -> None:
    """Rename a folder whose files are synced to disk. An existing folder at `path` is removed first."""
    fsync_folder(partial)
    if is_there(path):
        remove_folder_atomic(path)
    partial.rename(path)
    fsync_folder(path.parent)


def remove_folder_atomic(path: Path) -> None:
    """Remove a folder atomically: it is renamed first, so that it is either complete or gone."""
    removed = path.with_name(f".{path.name}.removed{PARTIAL}")
    with explained(path):
        _remove(removed)
        path.rename(removed)
        with contextlib.suppress(OSError):  # already renamed: the next process to lock the parent removes the rest
            _remove(removed)


def fsync_file(path: Path) -> None:
    """Sync to disk what was appended to a file."""
    with explained(path), open_plain(path, "rb+") as file:
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:  # neither overwrites a file nor follows a link
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, if the system supports that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove whatever is at `path`; of a link, only the link."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
