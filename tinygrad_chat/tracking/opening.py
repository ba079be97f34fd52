"""Opening a run's tracker: anew, or where an earlier start of the same run has left it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
from pathlib import Path

from tinygrad_chat.errors import BackendError, StorageError
from tinygrad_chat.files import cache_folder, is_there, write_atomic
from tinygrad_chat.tracking.tensorboard import TensorBoard
from tinygrad_chat.tracking.tracker import Tracker
from tinygrad_chat.tracking.trackio import Trackio
from tinygrad_chat.tracking.wandb import WeightsAndBiases
from tinygrad_chat.training.run import Run

IDENTITIES = "tracker.json"
"""In a run's folder: by what name or number each tracker knows the run."""

TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": WeightsAndBiases}


def expect_tracker(name: str | None) -> None:
    """Raise BackendError, naming the extra, where the library of the tracker `name` is not installed."""
    if name is None:
        return
    library = TRACKERS[name].library
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise BackendError(f"--track {name}: needs {library}, the extra {name}: pip install {library}") from error


def open_tracker(name: str, run: Run) -> Tracker:
    """Return the tracker `name`, opened for `run`: anew, or where an earlier start of this run has left it.

    Raises BackendError where its library is not installed, and whatever the library does.
    """
    expect_tracker(name)
    known = read_identities(run)
    tracker = TRACKERS[name](run, known.get(name))
    write_atomic(run.folder.path / IDENTITIES, json.dumps({**known, name: tracker.identity}, indent=1).encode())
    note = _note(run, name, tracker.identity)
    with contextlib.suppress(OSError, StorageError):  # without it, the user is asked once more
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(note, b"")
    return tracker


def was_opened_here(name: str, run: Run) -> bool:
    """Return whether the tracker `name` was opened on this machine before, for the run in this folder.

    The run's own files do not count: they may be from somebody else. The cache folder remembers it.
    """
    identity = read_identities(run).get(name)
    with contextlib.suppress(OSError):
        return identity is not None and is_there(_note(run, name, identity))
    return False


def _note(run: Run, name: str, identity: str) -> Path:
    known = "\0".join((str(run.folder.path.resolve()), name, identity))
    return cache_folder() / "trackers" / hashlib.sha256(known.encode(errors="surrogateescape")).hexdigest()


def read_identities(run: Run) -> dict[str, str]:
    """Return what tracker.json says; nothing where that cannot be read."""
    try:
        found = json.loads((run.folder.path / IDENTITIES).read_bytes())
        return {name: value for name, value in found.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError):
        return {}
