"""What this user has agreed to for a run, on this machine. A run's own files do not count: it may be from somebody
else, with settings that nobody here has chosen. So it is noted in the cache folder, by the run's path."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from tinygrad_chat.errors import StorageError
from tinygrad_chat.files import cache_folder, is_there, real_path, write_atomic


def note_consent(folder: Path, what: str) -> None:
    """Remember that the user has agreed to `what` for the run in a folder; without a cache they are asked once more."""
    note = _note(folder, what)
    with contextlib.suppress(OSError, StorageError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(note, b"")


def has_consent(folder: Path, what: str) -> bool:
    """Return whether the user has agreed to `what` for the run in a folder."""
    with contextlib.suppress(OSError):
        return is_there(_note(folder, what))
    return False


def _note(folder: Path, what: str) -> Path:
    subject = f"{real_path(folder)}\0{what}".encode(errors="surrogateescape")
    return cache_folder() / "consent" / hashlib.sha256(subject).hexdigest()
