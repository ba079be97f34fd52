"""What a run is at a step: all it takes to go on from there, stated once. It saves, loads and checks itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.config.record import TrainingConfig, from_saved
from tinygrad_chat.errors import CheckpointError, ConfigError
from tinygrad_chat.runs.checkpoint import (
    OPTIMIZER,
    WEIGHTS,
    checkpoint_path,
    explained_damage,
    map_arrays,
    read_state,
    write_checkpoint,
)
from tinygrad_chat.runs.log import Mark, Marks, is_step
from tinygrad_chat.runs.recent_losses import RecentLosses
from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state

FORMAT = 3
FLAT_FORMAT = 2
"""The format before: settings flat and the progress beside them; it is read, too."""


@dataclass(frozen=True)
class Rollback:
    """Training failed at `failed_step` and went back to `step`."""

    step: int
    failed_step: int

    @classmethod
    def load(cls, saved: Any) -> Rollback:
        """Make the rollback that `saved`, its `dataclasses.asdict`, describes. Raises ValueError for another."""
        fits = isinstance(saved, dict) and saved.keys() == {"step", "failed_step"}
        if not (fits and all(map(is_step, saved.values()))):
            raise ValueError(f"rollbacks: expected two steps, received {saved!r:.80}")
        return cls(**saved)


@dataclass
class Progress:
    """How far a run has come: after `step` updates and `seconds` of them, with the best evaluation so far.

    `skipped_batches` were passed over by rollbacks: step s trains on batch s + skipped_batches. The
    `rollbacks` are those since training last came past a step that failed.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    skipped_batches: int = 0
    rollbacks: tuple[Rollback, ...] = ()
    recent_losses: RecentLosses = field(default_factory=RecentLosses)

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Progress:
        """Make the progress that `saved`, its `dataclasses.asdict`, describes. Raises ValueError for another."""
        kinds = {"step": (int,), "seconds": (float,), "best_step": (int, None), "best_loss": (float, None)}
        kinds = {**kinds, "skipped_batches": (int,), "recent_losses": (dict,)}
        unfit = [name for name, allowed in kinds.items() if not _possible(saved.get(name), allowed)]
        if unfit:
            raise ValueError(f"{', '.join(unfit[:3])} cannot be")
        known = {name: saved[name] for name in kinds}
        rollbacks = saved.get("rollbacks") or ()  # earlier versions saved none
        if not isinstance(rollbacks, list | tuple):
            raise ValueError("rollbacks cannot be")
        return cls(
            **{
                **known,
                "recent_losses": RecentLosses.load(saved["recent_losses"]),
                "rollbacks": tuple(map(Rollback.load, rollbacks)),
            }
        )


def _possible(value: Any, kinds: tuple[type | None, ...]) -> bool:
    """Return whether a value is of one of the kinds and, if a number, one that can be: none is negative."""
    if value is None or type(value) not in kinds:
        return value is None and None in kinds
    return not isinstance(value, int | float) or (math.isfinite(value) and value >= 0)


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A trained model: what sampling needs of the checkpoint at `path`, None where it is not from a disk.

    The weights stay in their file until they are used.
    """

    step: int
    config: TrainingConfig
    tokenizer: Tokenizer
    weights: Mapping[str, np.ndarray]
    path: Path | None = None

    @classmethod
    def load(cls, path: Path) -> SavedModel:
        """Read the model of the checkpoint at `path`. Raises CheckpointError as `TrainingState.load` does."""
        with explained_damage(path):
            state = _read_state(path)
            return cls(
                step=state["progress"].step,
                config=state["config"],
                tokenizer=state["tokenizer"],
                weights=map_arrays(path, WEIGHTS)[0],
                path=path,
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
    log: Marks = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    @property
    def step(self) -> int:
        """The updates that have been done."""
        return self.progress.step

    @property
    def model(self) -> SavedModel:
        """The model that has been trained so far."""
        return SavedModel(step=self.step, config=self.config, tokenizer=self.tokenizer, weights=self.weights)

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


def _read_state(path: Path) -> dict[str, Any]:
    """Return the checked parts of a checkpoint's state.json."""
    state = read_state(path)
    if not isinstance(state, dict):
        raise ValueError("state.json holds no object")
    if state.get("format") == FLAT_FORMAT:
        state = _from_flat(state)
    elif state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FLAT_FORMAT} or {FORMAT}, which this version reads"
        )
    state = {"parent": {}, "log": {}, **state}  # most have none of the first, earlier versions none of the second
    parts = ("config", "tokenizer", "data", "parent", "progress", "log")
    unfit = [name for name in parts if not isinstance(state.get(name), dict)]
    if unfit:
        raise ValueError(f"{', '.join(unfit)} cannot be")
    try:
        config = from_saved(state["config"], source="state.json")
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {
        "config": config,
        "tokenizer": tokenizer_from_state(state["tokenizer"]),
        "data": state["data"],
        "parent": state["parent"],
        "log": {name: Mark.load(mark) for name, mark in state["log"].items()},
        "progress": Progress.load(state["progress"]),
    }


def _from_flat(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state of format 2 as one of format 3."""
    progress = {each.name: state.get(each.name) for each in dataclasses.fields(Progress)}
    progress["skipped_batches"] = state.get("passed_batches")
    return {**state, "progress": progress}
