"""Which model to chat with: the one that is named, or the newest that was taught to chat."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.groups import AUTO
from tinygrad_chat.errors import CheckpointError, ConfigError, FormatError, StorageError, UsageError
from tinygrad_chat.files import is_locked, real_path
from tinygrad_chat.formatting import quoted
from tinygrad_chat.interchange.opening import open_model
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.lookup import newest_runs
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations import ChatTemplate

DEFAULT = "chat"
"""The preset that is trained if there is no model yet."""
SIZES = {"small": "chat-small", "standard": "chat-standard", "portable": "chat-portable"}
"""The preset for each size that the user may choose."""
MINUTES = {DEFAULT: 12, "chat-small": 4, "chat-standard": 60, "chat-portable": 20}
"""About how long each takes on two cores: measured for the default, derived for the others from how much they read.
The first line of each preset states it too."""

Say = Callable[[str], None]


def named_model(path: Path, *, say: Say) -> SavedModel:
    """Return the model that the user named. Raises UsageError if it was never taught to chat."""
    saved = open_model(path, say=say)
    taught = saved.taught_to_chat
    if taught is None:  # imported
        with contextlib.suppress(UsageError):
            taught = bool(ChatTemplate(saved.tokenizer))
    if not taught and saved.of_another_program:
        raise UsageError(
            f"{path}: has no chat template; it can only continue texts: tgc sample --checkpoint {quoted(path)}"
        )
    if not taught:
        raise UsageError(
            f"{path}: was never taught to chat; continue a text with: tgc sample --checkpoint {quoted(path)}, or "
            f"teach it to chat with: tgc train --from {quoted(path)} --data CHATS.jsonl"
        )
    return saved


def chat_models(preset: str | None) -> Iterator[SavedModel]:
    """Yield the models in runs/ that were taught to chat, newest first; with a `preset`, only those made by it.

    Models that cannot be read are skipped: another one may do.
    """
    for run in newest_runs():
        with contextlib.suppress(CheckpointError, ConfigError, FormatError, StorageError, OSError):
            if preset is None or is_made_by(preset, run):
                saved = run.open_newest(SavedModel.load, say=lambda line: None)
                if saved.taught_to_chat:
                    yield saved


def is_made_by(preset: str, run: RunFolder) -> bool:
    """Return whether a run has the settings of a preset. Raises ConfigError if the run's cannot be read."""
    settings: Mapping[str, Any] = run.read_config().settings()
    return all(settings[name] == value or value == AUTO for name, value in read_settings(preset).items())


def run_of(saved: SavedModel) -> RunFolder:
    """Return the run of a model on disk, by its path as in `place_of`."""
    return RunFolder(place_of(saved))


def place_of(saved: SavedModel) -> Path:
    """Return the path of a model's run, or of a foreign model, relative to the working directory if it is inside."""
    place, here = saved.folder or saved.path, real_path(".")
    assert place
    return place.relative_to(here) if place.is_relative_to(here) else place


def unfinished_default(saved: SavedModel) -> RunFolder | None:
    """Return a model's run if it is from our chat presets, was stopped early, and no process is continuing it."""
    run = run_of(saved)
    if run.outcome_is("finished") or is_locked(run.path):
        return None
    return run if any(is_made_by(preset, run) for preset in (DEFAULT, *SIZES.values())) else None
