"""Checkpoints: folders that hold all it takes to go on, or to sample: whole, or not there.

step-000250/weights.safetensors     every parameter by name
step-000250/optimizer.safetensors   what the optimiser remembers
step-000250/state.json              step, configuration, tokenizer, data, best evaluation so far
step-000250/SHA256SUMS              the digest of each of them, as `sha256sum --check` reads it

A checkpoint may come from anywhere. Reading one runs no code of it, follows no path in it and takes no more memory
than the machine has; whatever does not fit is a CheckpointError.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.files import expect_plain, remove_folder_atomic, write_folder_atomic

FORMAT = 2
STATE: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "seconds": float,
    "config": dict,
    "tokenizer": dict,
    "data": dict,
    "best_step": (int, type(None)),
    "best_loss": (float, type(None)),
    "skipped_batches": int,
    "recent_losses": dict,
}
"""What state.json holds, beside `format`."""
WEIGHTS, OPTIMIZER, STATE_FILE, DIGESTS = "weights.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"
LARGEST_STATE = 64 << 20  # bytes; an alphabet of all of Unicode takes a third of it


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
    files = {
        WEIGHTS: save(dict(checkpoint.weights)),
        OPTIMIZER: save(dict(checkpoint.optimizer)),
        STATE_FILE: json.dumps(state, indent=1).encode(),
    }
    digests = "".join(_digest_line(name, io.BytesIO(content)) for name, content in files.items())
    write_folder_atomic(path, {**files, DIGESTS: digests.encode()})
    return path


def _digest_line(name: str, file: Any) -> str:
    return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint at `path`. Raises CheckpointError where it is missing, damaged or of another format."""
    try:
        for name in (WEIGHTS, OPTIMIZER):
            expect_plain(path / name, most=psutil.virtual_memory().available)
        for name in (STATE_FILE, DIGESTS):
            expect_plain(path / name, most=LARGEST_STATE)
        state = json.loads((path / STATE_FILE).read_bytes())
        if isinstance(state, dict) and state.get("format", FORMAT) != FORMAT:
            raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}, which this version reads")
        _expect_digests(path)
        weights, optimizer = load_file(path / WEIGHTS), load_file(path / OPTIMIZER)
    except OSError as error:
        raise CheckpointError(
            f"{path}: no checkpoint there ({error.strerror}: {Path(error.filename or path).name})"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged ({error})") from error
    unfit = [name for name, kinds in STATE.items() if not isinstance(state, dict) or _unfit(state.get(name), kinds)]
    unfit += [name for arrays in (weights, optimizer) for name, array in arrays.items() if not _of_numbers(array)]
    unfit = unfit or [name for name in STATE if not _possible(state[name])]
    if unfit:
        raise CheckpointError(f"{path}: the checkpoint is damaged ({', '.join(unfit[:3])} cannot be)")
    return Checkpoint(state["step"], weights, optimizer, state)


def _of_numbers(array: np.ndarray) -> bool:
    """Return whether an array holds numbers of a kind that we save: no bfloat16, which NumPy may or may not know."""
    return array.dtype.kind in "fiu" and bool(np.isfinite(array).all())


def _possible(value: Any) -> bool:
    """Return whether a number of the state can be: none is negative, a loss included."""
    return not isinstance(value, int | float) or (math.isfinite(value) and value >= 0)


def _unfit(value: Any, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, bool) or not isinstance(value, kinds)


def _expect_digests(path: Path) -> None:
    """Raise ValueError where a file's content is not what SHA256SUMS says."""
    wanted = (path / DIGESTS).read_text(encoding="ascii").splitlines(keepends=True)
    for name in (WEIGHTS, OPTIMIZER, STATE_FILE):
        with (path / name).open("rb") as file:
            if not wanted or _digest_line(name, file) != wanted.pop(0):
                raise ValueError(f"{name} is not what {DIGESTS} says")


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints below `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-[0-9]+", path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """Return the step of the checkpoint at `path`."""
    return int(path.name.removeprefix("step-"))


def load_newest(folder: Path, *, before: int | None = None, say: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest whole checkpoint below `folder` (of a step `before` that one), or None where there is none.

    `say` is told, in a line each, of the damaged ones that were passed over.
    """
    for path in reversed(find_checkpoints(folder)):
        if before is not None and step_of(path) >= before:
            continue
        try:
            checkpoint = load_checkpoint(path)
            if checkpoint.step == step_of(path):
                return checkpoint
            say(f"{path}: the checkpoint is damaged (it is of step {checkpoint.step}); passed over")
        except CheckpointError as error:
            say(f"{error}; passed over")
    return None


def remove_old_checkpoints(folder: Path, *, step: int, keep: int, best_step: int | None) -> None:
    """Of the checkpoints below `folder` up to `step`, remove all but the `keep` newest and the best.

    One of a later step stays: it was passed over when the run was resumed, and its successor will take its place.
    """
    for path in [path for path in find_checkpoints(folder) if step_of(path) <= step][:-keep]:
        if best_step is None or path != checkpoint_path(folder, best_step):
            remove_folder_atomic(path)


def remove_later_checkpoints(folder: Path, *, step: int) -> None:
    """Remove the checkpoints below `folder` of steps after `step`."""
    for path in find_checkpoints(folder):
        if step_of(path) > step:
            remove_folder_atomic(path)
