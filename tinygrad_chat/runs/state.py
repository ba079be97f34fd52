"""The state of a run at a step: all it takes to continue from there. It saves, loads and checks itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from tinygrad_chat.config.record import TrainingConfig, from_saved
from tinygrad_chat.errors import FormatError
from tinygrad_chat.models.lora import merge
from tinygrad_chat.runs.checkpoint import (
    OPTIMIZER,
    STATE_FILE,
    WEIGHTS,
    checkpoint_path,
    explained_damage,
    map_arrays,
    read_state,
    write_checkpoint,
)
from tinygrad_chat.runs.log import Mark, Marks
from tinygrad_chat.runs.recent_losses import RecentLosses
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.schema import OPTIONAL, Amount, Count, checked
from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state

FORMAT = 3
FLAT_FORMAT = 2
"""The previous format, which is still read: flat settings, and the progress at the top level."""


@dataclass(frozen=True)
class Rollback:
    """Training failed at `failed_step` and went back to `step`."""

    step: Count
    failed_step: Count


@dataclass
class Progress:
    """The progress of a run: `step` updates, which took `seconds`, and the best evaluation so far.

    `best_loss` is the validation loss or, with rewards, 1 - reward. `skipped_batches` were skipped by rollbacks: step s
    trains on batch s + skipped_batches. `rollbacks` are those since training last got past all steps that failed.
    """

    step: Count = 0
    seconds: Amount = 0.0
    best_step: Count | None = None
    best_loss: Amount | None = None
    skipped_batches: Count = 0
    rollbacks: tuple[Rollback, ...] = field(default=(), metadata=OPTIONAL)  # earlier versions saved none
    recent_losses: RecentLosses = field(default_factory=RecentLosses)


class DataSummary(TypedDict, total=False):
    """What a run records about its training data, as far as resuming depends on it; other keys may follow."""

    source: str
    sha256: str
    own: bool
    trained_tokens: Count  # for conversations: the assistant's tokens
    parts: list[dict[str, Any]]  # with several sources: the same for each


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The content of state.json."""

    config: dict[str, Any]
    tokenizer: dict[str, Any]
    data: DataSummary
    parent: dict[str, Any]
    progress: Progress
    log: dict[str, Mark] = field(default_factory=dict, metadata=OPTIONAL)
    sampling: Sampling = field(default_factory=Sampling, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A trained model: what sampling needs of the checkpoint at `path` (None if it is not from disk).

    The weights, arrays or, from another program, StoredArrays, stay in their file until they are used, except that
    LoRA adapters are merged into the weights they adapt.
    """

    progress: Progress
    config: TrainingConfig
    tokenizer: Tokenizer
    weights: Mapping[str, Any]
    path: Path | None = None
    taught_to_chat: bool | None = None
    """Whether it learned from conversations; None if unknown, as for an imported model."""
    sampling: Sampling = field(default_factory=Sampling)
    """The sampling settings that an imported model's files recommend."""
    of_another_program: bool = False
    """Whether `path` is another program's file or folder rather than part of a run."""

    @property
    def step(self) -> int:
        """The updates that have been done."""
        return self.progress.step

    @property
    def folder(self) -> Path | None:
        """The folder of its run."""
        return None if self.path is None or self.of_another_program else self.path.resolve().parent.parent

    @property
    def name(self) -> str:
        """Its name: that of its run, or of the file or folder it was opened from."""
        place = self.folder or (self.path and self.path.resolve())
        return place.name if place else self.config.recipe.model

    @classmethod
    def load(cls, path: Path) -> SavedModel:
        """Read the model of the checkpoint at `path`. Raises CheckpointError as `TrainingState.load` does."""
        with explained_damage(path):
            state = _read_state(path)
            config, tokenizer, weights = state["config"], state["tokenizer"], map_arrays(path, WEIGHTS)[0]
            if config.model.lora:
                weights = merge(config.model, tokenizer.size, weights)
                config = config.replace(lora=None)
            return cls(
                progress=state["progress"],
                config=config,
                tokenizer=tokenizer,
                weights=weights,
                path=path,
                taught_to_chat=_was_taught_to_chat(state),
                sampling=state["sampling"],
            )


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All it takes to continue a run: `data` summarises the training data, and is empty for an imported model.

    `parent` is the checkpoint that the initial weights came from, empty if they were freshly initialised; `log` marks
    what the log holds.
    """

    config: TrainingConfig
    tokenizer: Tokenizer
    weights: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    data: Mapping[str, Any] = field(default_factory=dict)
    parent: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    log: Marks = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    @property
    def step(self) -> int:
        """The updates that have been done."""
        return self.progress.step

    @property
    def model(self) -> SavedModel:
        """The model that has been trained so far."""
        return SavedModel(
            progress=self.progress,
            config=self.config,
            tokenizer=self.tokenizer,
            weights=self.weights,
            sampling=self.sampling,
        )

    def save(self, folder: Path, *, temporary: bool = False) -> Path:
        """Write a checkpoint below `folder`, regular or `temporary`; return its path.

        Raises StorageError, and leaves nothing half-written.
        """
        state = {
            "format": FORMAT,
            "config": self.config.tables(),
            "tokenizer": self.tokenizer.state(),
            "data": dict(self.data),
            **({"parent": dict(self.parent)} if self.parent else {}),
            **({"sampling": stated} if (stated := self.sampling.settings()) else {}),
            "progress": dataclasses.asdict(self.progress),
            **({"log": {name: dataclasses.asdict(mark) for name, mark in self.log.items()}} if self.log else {}),
        }
        path = checkpoint_path(folder, self.step, temporary=temporary)
        write_checkpoint(path, state, weights=self.weights, optimizer=self.optimizer)
        return path

    @classmethod
    def load(cls, path: Path) -> TrainingState:
        """Read the checkpoint at `path`. Raises CheckpointError if it is missing, damaged or in another format."""
        with explained_damage(path):
            weights, optimizer = map_arrays(path, WEIGHTS, OPTIMIZER)
            return cls(**_read_state(path), weights=weights, optimizer=optimizer)


def taught_to_chat(path: Path) -> bool | None:
    """Return `SavedModel.taught_to_chat` of the checkpoint at `path`. Raises CheckpointError if it is damaged."""
    with explained_damage(path):
        return _was_taught_to_chat(_read_state(path))


def _was_taught_to_chat(state: Mapping[str, Any]) -> bool | None:
    data = state["data"]
    if not data:
        return None
    answers = state["config"].objective.by_reward  # whatever text it is evaluated on
    return answers or any("trained_tokens" in part for part in (data, *data.get("parts", ())))


def _read_state(path: Path) -> dict[str, Any]:
    """Return the parts of a checkpoint's state.json, checked."""
    found = read_state(path)
    if found.get("format") == FLAT_FORMAT:
        found = _from_flat(found)
    elif found.get("format") != FORMAT:
        raise FormatError(f"{STATE_FILE}: format: expected {FLAT_FORMAT} or {FORMAT}, which this version reads")
    state = checked({"parent": {}, **found}, SavedState, source=STATE_FILE)  # most have no parent
    return {
        "config": from_saved(state.config, source=STATE_FILE),
        "tokenizer": tokenizer_from_state(state.tokenizer),
        "data": state.data,
        "parent": state.parent,
        "log": state.log,
        "sampling": state.sampling,
        "progress": state.progress,
    }


def _from_flat(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state of format 2 as one of format 3."""
    progress = {each.name: state[each.name] for each in dataclasses.fields(Progress) if each.name in state}
    return {**state, "progress": {**progress, "skipped_batches": state.get("passed_batches")}}
