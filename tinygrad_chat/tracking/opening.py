"""Open a run's tracker: a new one, or the one that an earlier start of the same run used."""

from __future__ import annotations

import importlib
import json

from tinygrad_chat.errors import BackendError, FormatError
from tinygrad_chat.files import explained, is_there, write_atomic
from tinygrad_chat.runs.consent import has_consent, note_consent
from tinygrad_chat.schema import read_json
from tinygrad_chat.tracking.tensorboard import TensorBoard
from tinygrad_chat.tracking.tracker import Tracker
from tinygrad_chat.tracking.trackio import Trackio
from tinygrad_chat.tracking.wandb import WeightsAndBiases
from tinygrad_chat.training.run import Run

IDENTITIES = "tracker.json"
"""The file in a run's folder with the name or number by which each tracker knows the run."""

LARGEST_FILE = 1 << 20  # bytes

TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": WeightsAndBiases}


def expect_tracker(name: str | None) -> None:
    """Raise BackendError, naming the extra, if the library of the tracker `name` is not installed."""
    if name is None:
        return
    library = TRACKERS[name].library
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise BackendError(f"--track {name}: needs {library}, the extra {name}: pip install {library}") from error


def open_tracker(name: str, run: Run) -> Tracker:
    """Open the tracker `name` for `run`, where it continues what an earlier start of the run has sent.

    Raises BackendError if its library is not installed, and whatever the library raises.
    """
    expect_tracker(name)
    known = read_identities(run)
    tracker = TRACKERS[name](run, known.get(name))
    write_atomic(run.folder.path / IDENTITIES, json.dumps({**known, name: tracker.identity}, indent=1).encode())
    note_consent(run.folder.path, _opening(name, tracker.identity))
    return tracker


def was_opened_here(name: str, run: Run) -> bool:
    """Return whether the tracker `name` was opened before on this machine for the run in this folder."""
    identity = read_identities(run).get(name)
    return identity is not None and has_consent(run.folder.path, _opening(name, identity))


def _opening(name: str, identity: str) -> str:
    return f"opening {name} for {identity}"


def read_identities(run: Run) -> dict[str, str]:
    """Return the content of tracker.json; empty if it is damaged or missing.

    Raises StorageError if it cannot be read, as its content would then be overwritten.
    """
    path = run.folder.path / IDENTITIES
    try:
        with explained(path, "read"):
            return read_json(path, dict[str, str]) if is_there(path) else {}
    except FormatError:
        return {}
