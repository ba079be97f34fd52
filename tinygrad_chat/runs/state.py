"""What a run is at a step: all it takes to go on from there, stated once. It saves, loads and checks itself."""

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
"""The format before: settings flat and the progress beside them; it is read, too."""


@dataclass(frozen=True)
class Rollback:
    """Training failed at `failed_step` and went back to `step`."""

    step: Count
    failed_step: Count


@dataclass
class Progress:
    """How far a run has come: after `step` updates and `seconds` of them, with the best evaluation so far.

    It is compared by its loss or, where there is a reward, by how much is missing to 1.

    `skipped_batches` were passed over by rollbacks: step s trains on batch s + skipped_batches. The
    `rollbacks` are those since training last came past a step that failed.
    """

    step: Count = 0
    seconds: Amount = 0.0
    best_step: Count | None = None
    best_loss: Amount | None = None
    skipped_batches: Count = 0
    rollbacks: tuple[Rollback, ...] = field(default=(), metadata=OPTIONAL)  # earlier versions saved none
    recent_losses: RecentLosses = field(default_factory=RecentLosses)


class DataSummary(TypedDict, total=False):
    """What a run records of the data that it is trained on, as far as going on depends on it; beside that, more."""

    source: str
    sha256: str
    own: bool
    trained_tokens: Count  # of conversations: those that the assistant writes
    parts: list[dict[str, Any]]  # of several sources: the same of each


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """What state.json holds."""

    config: dict[str, Any]
    tokenizer: dict[str, Any]
    data: DataSummary
    parent: dict[str, Any]
    progress: Progress
    log: dict[str, Mark] = field(default_factory=dict, metadata=OPTIONAL)
    sampling: Sampling = field(default_factory=Sampling, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A trained model: what sampling needs of the checkpoint at `path`, None where it is not from a disk.

    The weights, arrays or of another program StoredArrays, stay in their file until they are used; but adapters are
    merged into those beside them, so that it is a model like any other.
    """

    progress: Progress
    config: TrainingConfig
    tokenizer: Tokenizer
    weights: Mapping[str, Any]
    path: Path | None = None
    taught_to_chat: bool | None = None
    """Whether it learned from conversations; None where nobody knows, as of an imported model."""
    sampling: Sampling = field(default_factory=Sampling)
    """How those who made it would have its tokens drawn, as an imported model's files say it."""
    of_another_program: bool = False
    """Whether it stands in another program's files at `path`, and in no run."""

    @property
    def step(self) -> int:
        """The updates that have been done."""
        return self.progress.step

    @property
    def folder(self) -> Path | None:
        """The folder of the run that it is from."""
        return None if self.path is None or self.of_another_program else self.path.resolve().parent.parent

    @property
    def name(self) -> str:
        """What it is called: as its run is, or the file or folder that it is opened from."""
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
    """All it takes to go on: `data` is the summary of what is trained on, empty for an imported model.

    `parent` says of which checkpoint the first weights are, where they were not drawn; `log` what the log holds.
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
        """Write a checkpoint below `folder`, `temporary` or to stay; return its path.

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
        """Read the checkpoint at `path`. Raises CheckpointError where it is missing, damaged or of another format."""
        with explained_damage(path):
            weights, optimizer = map_arrays(path, WEIGHTS, OPTIMIZER)
            return cls(**_read_state(path), weights=weights, optimizer=optimizer)


def taught_to_chat(path: Path) -> bool | None:
    """Return what `SavedModel.taught_to_chat` is of the checkpoint at `path`. Raises CheckpointError for damage."""
    with explained_damage(path):
        return _was_taught_to_chat(_read_state(path))


def _was_taught_to_chat(state: Mapping[str, Any]) -> bool | None:
    data = state["data"]
    if not data:
        return None
    answers = state["config"].objective.by_reward  # whatever text is measured beside
    return answers or any("trained_tokens" in part for part in (data, *data.get("parts", ())))


def _read_state(path: Path) -> dict[str, Any]:
    """Return the checked parts of a checkpoint's state.json."""
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
