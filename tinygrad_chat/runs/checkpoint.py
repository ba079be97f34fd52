"""Checkpoints as folders on disk: whole, or not there; found, read in bounds and removed.

step-000250/weights.safetensors     every parameter by name
step-000250/optimizer.safetensors   what the optimiser remembers
step-000250/state.json              all else that state.py says of a run
step-000250/SHA256SUMS              the digest of each of them, as `sha256sum --check` reads it
step-000317-temporary/              the same, saved because time had passed: it stays until the next one is whole

A checkpoint may come from anywhere. Reading one runs no code of it, follows no path in it and takes no more memory
than the machine has; whatever does not fit is a CheckpointError.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from tinygrad_chat.backend import available_memory
from tinygrad_chat.errors import CheckpointError, ConfigError, FormatError
from tinygrad_chat.files import (
    UnfitFileError,
    explained,
    folder_is_there,
    is_folder,
    is_there,
    list_folder,
    open_plain,
    read_plain,
    remove_folder_atomic,
    write_folder_atomic,
)
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.runs.arrays import map_file, to_safetensors
from tinygrad_chat.schema import read_json

WEIGHTS, OPTIMIZER, STATE_FILE, DIGESTS = "weights.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"
NAME = "step-[0-9]{1,15}"  # of so many digits no run has more steps: a longer number is no checkpoint's, nor a sample's
TEMPORARY = "-temporary"  # ends a checkpoint's name
LARGEST_STATE = 32 << 20  # bytes; an alphabet of all of Unicode takes half of it
LARGEST_DIGESTS = 1 << 16
PART = 1 << 22  # numbers that are looked at at a time


class Saved(Protocol):
    """What a checkpoint holds, or a part of it."""

    @property
    def step(self) -> int:
        """The updates that the weights are behind."""
        ...


Loaded = TypeVar("Loaded", bound=Saved)
Load = Callable[[Path], Loaded]
"""Reads a checkpoint, or raises CheckpointError"""


def checkpoint_path(folder: Path, step: int, *, temporary: bool = False) -> Path:
    """Return where in `folder` the checkpoint of a step stands."""
    return folder / f"step-{step:06d}{TEMPORARY if temporary else ''}"


def is_temporary(path: Path) -> bool:
    """Return whether the checkpoint at `path` was saved because time had passed, and not because its step was due."""
    return path.name.endswith(TEMPORARY)


def write_checkpoint(
    path: Path, state: Mapping[str, Any], *, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]
) -> None:
    """Write a checkpoint's files. Raises StorageError; then nothing half-written is left."""
    files = {
        WEIGHTS: to_safetensors(weights),
        OPTIMIZER: to_safetensors(optimizer),
        STATE_FILE: json.dumps(state, indent=1).encode(),
    }
    digests = "".join(_digest_line(name, io.BytesIO(content)) for name, content in files.items())
    write_folder_atomic(path, {**files, DIGESTS: digests.encode()})


def _digest_line(name: str, file: Any) -> str:
    return f"{_digest(file)}  {name}\n"


def _digest(file: Any) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explained_damage(path: Path) -> Iterator[None]:
    """Turn whatever reading the checkpoint at `path` may raise into a CheckpointError in one line.

    But what is there and cannot be read now is a StorageError: it may be whole, and nobody may go on without it.
    """
    with explained(path, "read"):
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, UnfitFileError) as error:
            raise CheckpointError(
                f"{path}: no checkpoint there ({error.strerror}: {Path(error.filename or path).name})"
            ) from error
        except (FormatError, ConfigError) as error:
            raise CheckpointError(f"{path}: the checkpoint is damaged ({error})") from error


def read_state(path: Path) -> dict[str, Any]:
    """Return what is in state.json. Raises what `explained_damage` explains."""
    return read_json(
        _checked(path, STATE_FILE, most=LARGEST_STATE), dict[str, Any], source=STATE_FILE, most=LARGEST_STATE
    )


def map_arrays(path: Path, *names: str) -> list[dict[str, np.ndarray]]:
    """Return the arrays of safetensors files of the checkpoint; there must be room for all of them together.

    The numbers stay in their file until they are used: the arrays are read-only views of its pages. Raises what
    `explained_damage` explains.
    """
    mapped, room = [], available_memory()
    for name in names:
        file = _checked(path, name, most=room)
        arrays, _ = map_file(file, most=room)
        unfit = [name for name, array in arrays.items() if not _is_finite(array)]
        if unfit:
            raise FormatError(f"{name}: {short_repr(unfit[0])}: expected finite numbers, received NaN or infinity")
        room -= file.stat().st_size
        mapped.append(arrays)
    return mapped


def _is_finite(array: np.ndarray) -> bool:
    """Look at the numbers in parts: what is found of all at once would take a quarter of their room."""
    numbers = array.reshape(-1)
    return all(np.isfinite(numbers[first : first + PART]).all() for first in range(0, numbers.size, PART))


def digest_of(path: Path, name: str) -> str:
    """Return the SHA-256 of a file of the checkpoint, as SHA256SUMS says. Raises what `explained_damage` explains."""
    lines = read_plain(path / DIGESTS, most=LARGEST_DIGESTS).decode("ascii", "replace")
    found = re.search(rf"^([0-9a-f]{{64}})  {re.escape(name)}\n", lines, re.MULTILINE)
    if found is None:
        raise FormatError(f"{DIGESTS}: has no digest of {name}")
    return found[1]


def _checked(path: Path, name: str, *, most: int) -> Path:
    """Return where a file of the checkpoint is. Raises OSError for one that cannot be read in bounds, FormatError where
    its content is not what SHA256SUMS says."""
    wanted = digest_of(path, name)
    with open_plain(path / name, most=most) as file:
        if _digest(file) != wanted:
            raise FormatError(f"{name}: is not what {DIGESTS} says")
    return path / name


def find_checkpoints(folder: Path, *, temporary: bool = True) -> list[Path]:
    """Return the checkpoints below `folder`, oldest first, with or without the `temporary` ones: of two of the same
    step, that is the one that a rollback to the other has left.

    Raises StorageError where the folder cannot be read, or something else has a checkpoint's name.
    """
    with explained(folder, "read"):
        named = [path for path in list_folder(folder) if re.fullmatch(rf"{NAME}({TEMPORARY})?", path.name)]
        found = [path for path in named if folder_is_there(path)]  # one may have been removed meanwhile
    return sorted((path for path in found if temporary or not is_temporary(path)), key=_age)


def _age(path: Path) -> tuple[int, bool]:
    return step_of(path), is_temporary(path)


def step_of(path: Path) -> int:
    """Return the step of the checkpoint at `path`."""
    return int(path.name.removeprefix("step-").removesuffix(TEMPORARY))


def load_newest(
    folder: Path, load: Load[Loaded], *, before: int | None = None, temporary: bool = True, say: Callable[[str], None]
) -> Loaded | None:
    """Return the newest whole checkpoint below `folder` (of a step `before` that one), or None where there is none.

    Without the `temporary` ones, which it is depends on no clock. `say` is told, in a line each, of the damaged ones
    that were passed over.
    """
    for path in reversed(find_checkpoints(folder, temporary=temporary)):
        if before is not None and step_of(path) >= before:
            continue
        try:
            saved = load(path)
            if saved.step == step_of(path):
                return saved
            say(f"{path}: the checkpoint is damaged (it is of step {saved.step}); passed over")
        except CheckpointError as error:
            say(f"{error}; passed over")
    return None


def remove_old_checkpoints(folder: Path, *, step: int, keep: int, best_step: int | None) -> None:
    """Of the checkpoints below `folder` up to `step`, remove all but the `keep` newest and the best.

    Temporary ones do not count. One of a later step stays: it was passed over when the run was resumed, and its
    successor will take its place.
    """
    for path in [path for path in find_checkpoints(folder, temporary=False) if step_of(path) <= step][:-keep]:
        if best_step is None or path != checkpoint_path(folder, best_step):
            remove_folder_atomic(path)


def make_temporary(path: Path) -> None:
    """Let the checkpoint at `path` be a temporary one, if it is there and no temporary one of its step is."""
    temporary = path.with_name(f"{path.name}{TEMPORARY}")
    with explained(path):
        if is_folder(path) and not is_there(temporary):
            path.rename(temporary)


def remove_temporary_checkpoints(folder: Path, *, but: Path) -> None:
    """Remove the temporary checkpoints below `folder` that another one, `but`, has taken the place of."""
    for path in find_checkpoints(folder):
        if is_temporary(path) and path != but:
            remove_folder_atomic(path)


def remove_later_checkpoints(folder: Path, *, step: int) -> None:
    """Remove the checkpoints below `folder` of steps after `step`."""
    for path in find_checkpoints(folder):
        if step_of(path) > step:
            remove_folder_atomic(path)
