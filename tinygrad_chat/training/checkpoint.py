"""Checkpoints: folders that hold all it takes to go on, or to sample: whole, or not there.

step-000250/weights.safetensors     every parameter by name
step-000250/optimizer.safetensors   what the optimiser remembers
step-000250/state.json              step, configuration, tokenizer, data, best evaluation so far
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.training.storage import write_whole_folder

FORMAT = 1
STATE: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "seconds": float,
    "config": dict,
    "tokenizer": dict,
    "data": dict,
    "best_step": (int, type(None)),
    "best_loss": (float, type(None)),
}
"""What state.json holds, beside `format`."""
KEPT = 2  # newest checkpoints that stay, beside the best


@dataclass(frozen=True)
class Checkpoint:
    """The arrays and the state, ready for JSON, that a run is at a step."""

    step: int
    weights: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    state: Mapping[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where in `folder` the checkpoint of a step stands."""
    return folder / f"step-{step:06d}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below `folder` and return its path. Raises StorageError; then nothing half-written is left."""
    path = checkpoint_path(folder, checkpoint.step)
    state = {"format": FORMAT, "step": checkpoint.step, **checkpoint.state}
    write_whole_folder(
        path,
        {
            "weights.safetensors": save(dict(checkpoint.weights)),
            "optimizer.safetensors": save(dict(checkpoint.optimizer)),
            "state.json": json.dumps(state, indent=1).encode(),
        },
    )
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint at `path`. Raises CheckpointError where it is missing, damaged or of another format."""
    try:
        state = json.loads((path / "state.json").read_bytes())
        weights = load((path / "weights.safetensors").read_bytes())
        optimizer = load((path / "optimizer.safetensors").read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: no checkpoint there ({error.strerror}: {Path(error.filename).name})") from error
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged ({error}); use an earlier one") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}, which this version reads")
    unfit = [name for name, kinds in STATE.items() if not isinstance(state.get(name), kinds)]
    if unfit or state["step"] < 0:
        raise CheckpointError(
            f"{path}: the checkpoint is damaged (state.json: {', '.join(unfit) or 'step'}); use an earlier one"
        )
    return Checkpoint(state["step"], weights, optimizer, state)


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints below `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-[0-9]+", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def remove_old_checkpoints(folder: Path, *, best_step: int | None) -> None:
    """Remove all checkpoints below `folder` but the KEPT newest and the best."""
    for path in find_checkpoints(folder)[:-KEPT]:
        if best_step is None or path != checkpoint_path(folder, best_step):
            shutil.rmtree(path, ignore_errors=True)
