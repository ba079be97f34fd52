"""`--data -`: standard input, which can be read only once, saved to a file so that a run can be resumed."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
import sys
import tempfile
from pathlib import Path

from tinygrad_chat.errors import UsageError
from tinygrad_chat.files import PARTIAL, cache_folder, explained, list_folder, status_of

STANDARD_INPUT = "-"
MAX_BYTES = 8 << 30  # of all saved files; the newest stays
PIECE = 1 << 20


@functools.cache
def keep_standard_input() -> str:
    """Read standard input, save it in the cache folder under its digest and return its path there.

    So the same text is the same data in every run. Raises UsageError if standard input is closed, StorageError if there
    is no room for it.
    """
    if sys.stdin is None:
        raise UsageError("--data -: standard input is closed; name a file, or pipe a text in")
    folder = _kept()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=folder, prefix=".", suffix=PARTIAL)
        try:
            digest = hashlib.sha256()
            with os.fdopen(descriptor, "wb") as file:
                while piece := sys.stdin.buffer.read(PIECE):
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            path = folder / f"stdin-{digest.hexdigest()[:16]}.txt"
            if not _is_kept(path, Path(partial).stat().st_size):
                Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
    _make_room(path)
    return str(path)


def was_standard_input(path: Path) -> bool:
    """Return whether a path looks like one that `keep_standard_input` has returned."""
    return path.parent == _kept() and path.name.startswith("stdin-")


def _kept() -> Path:
    return cache_folder() / "input"


def _is_kept(path: Path, size: int) -> bool:
    """Return whether a regular file of that size, not a link, is already there."""
    status = status_of(path)
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size == size


def _make_room(newest: Path) -> None:
    size = 0
    kept = [path for path in list_folder(_kept(), follow=True) if re.fullmatch(r"stdin-[0-9a-f]+\.txt", path.name)]
    for path in sorted(kept, key=lambda path: path.lstat().st_mtime_ns, reverse=True):
        size += path.lstat().st_size
        if size > MAX_BYTES and path != newest:
            path.unlink(missing_ok=True)
