"""A folder that is held open, so that it can be found again after it was moved."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinygrad_chat.errors import StorageError
from tinygrad_chat.files.opening import explained, status_of

if sys.platform != "win32":
    import fcntl

F_GETPATH = 50  # macOS's fcntl command for the path of an open file
LONGEST_PATH = 1024


class HeldFolder:
    """An open folder and its `descriptor`; None on Windows, where a folder with an open file cannot be moved."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def find(self, path: Path) -> Path:
        """Return the present path of the folder that was opened at `path`; usually the same.

        Raises StorageError if it was removed, or moved to a place that the system does not tell.
        """
        if self._descriptor is None or self._is_at(path):
            return path
        moved = self._ask()
        if moved is None or not self._is_at(moved):
            raise StorageError(f"{path}: was moved or removed while a process was using it; put it back")
        return moved

    def _is_at(self, path: Path) -> bool:
        assert self._descriptor is not None
        try:
            status = status_of(path, follow=True)
        except OSError:
            return True  # unknown; using the path will fail with its own error
        return status is not None and os.path.samestat(status, os.fstat(self._descriptor))

    def _ask(self) -> Path | None:
        """Return the folder's path according to the system, None if unknown."""
        try:
            if sys.platform == "darwin":
                name = fcntl.fcntl(self._descriptor, F_GETPATH, bytes(LONGEST_PATH)).rstrip(b"\0")
                return Path(os.fsdecode(name))
            return Path(f"/proc/self/fd/{self._descriptor}").readlink()
        except (OSError, ValueError):
            return None


@contextmanager
def hold(folder: Path) -> Iterator[HeldFolder]:
    """Hold a folder open until the context ends. Raises StorageError if it does not exist."""
    if os.name != "posix":
        yield HeldFolder(None)
        return
    with explained(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield HeldFolder(descriptor)
    finally:
        os.close(descriptor)
