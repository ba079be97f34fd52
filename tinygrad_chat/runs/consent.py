"""What this user has agreed to for a run, on this machine. It is noted in the cache folder, by the run's path: a run's
own files may come from someone else, with settings that this user did not choose."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from tinygrad_chat.errors import StorageError, UsageError
from tinygrad_chat.files import cache_folder, is_there, real_path, write_atomic
from tinygrad_chat.formatting import quoted
from tinygrad_chat.text.corpora import Source
from tinygrad_chat.text.hub import is_on_hub
from tinygrad_chat.text.shares import without_shares


def note_consent(folder: Path, what: str) -> None:
    """Remember that the user has agreed to `what` for the run in a folder; without a cache they will be asked again."""
    note = _note(folder, what)
    with contextlib.suppress(OSError, StorageError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(note, b"")


def has_consent(folder: Path, what: str) -> bool:
    """Return whether the user has agreed to `what` for the run in a folder."""
    with contextlib.suppress(OSError):
        return is_there(_note(folder, what))
    return False


def note_data(folder: Path, data: Source) -> None:
    """Remember which data sets on the hub the user has named for the run in a folder."""
    for name in _on_hub(data):
        note_consent(folder, f"reading {name}")


def expect_named(folder: Path, data: Source) -> None:
    """Raise UsageError if the settings of the run in a folder name a data set on the hub, which would be downloaded,
    that the user has not named."""
    if not all(has_consent(folder, f"reading {name}") for name in _on_hub(data)):
        flags = " ".join(f"--data {quoted(name)}" for name in ([data] if isinstance(data, str) else data))
        raise UsageError(
            f"{folder}: its settings name data on the Hugging Face hub, which was never requested on this machine; to "
            f"download it, add: {flags}"
        )


def _on_hub(data: Source) -> list[str]:
    return [name for name in without_shares(data) if is_on_hub(name)]


def _note(folder: Path, what: str) -> Path:
    subject = f"{real_path(folder)}\0{what}".encode(errors="surrogateescape")
    return cache_folder() / "consent" / hashlib.sha256(subject).hexdigest()
