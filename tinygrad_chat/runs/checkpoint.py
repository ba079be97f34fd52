"""Checkpoints as folders on disk: written atomically, found, read safely and removed.

step-000250/weights.safetensors     every parameter by name
step-000250/optimizer.safetensors   the optimiser state
step-000250/state.json              the rest of a run's state, see state.py
step-000250/SHA256SUMS              the digest of each file, as `sha256sum --check` reads it
step-000317-temporary/              the same, saved because time had passed; kept until the next one is complete

A checkpoint may come from an untrusted source. Reading one runs no code from it, follows no path in it and takes no
more memory than the machine has; anything invalid is a CheckpointError.
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
NAME = "step-[0-9]{1,15}"  # no run has more steps: a longer number names neither a checkpoint nor a sample
TEMPORARY = "-temporary"  # the suffix of a temporary checkpoint's name
LARGEST_STATE = 32 << 20  # bytes; a character vocabulary of all of Unicode takes half of it
LARGEST_DIGESTS = 1 << 16
PART = 1 << 22  # numbers checked at a time


class Saved(Protocol):
    """What a checkpoint holds, or a part of it."""

    @property
    def step(self) -> int:
        """The number of updates that the weights have had."""
        ...


Loaded = TypeVar("Loaded", bound=Saved)
Load = Callable[[Path], Loaded]
"""Reads a checkpoint, or raises CheckpointError"""


def checkpoint_path(folder: Path, step: int, *, temporary: bool = False) -> Path:
    """Return the path in `folder` of the checkpoint of a step."""
    return folder / f"step-{step:06d}{TEMPORARY if temporary else ''}"


def is_temporary(path: Path) -> bool:
    """Return whether the checkpoint at `path` was saved because time had passed, not because one was due."""
    return path.name.endswith(TEMPORARY)


def write_checkpoint(
    path: Path, state: Mapping[str, Any], *, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]
) -> None:
    """Write a checkpoint atomically. Raises StorageError, and leaves nothing half-written."""
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
    """Turn any error of reading the checkpoint at `path` into a one-line CheckpointError.

    A checkpoint that exists but cannot be read now is a StorageError: it may be intact, and must not be skipped.
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
    """Return the content of state.json. Raises what `explained_damage` handles."""
    return read_json(
        _checked(path, STATE_FILE, most=LARGEST_STATE), dict[str, Any], source=STATE_FILE, most=LARGEST_STATE
    )


def map_arrays(path: Path, *names: str) -> list[dict[str, np.ndarray]]:
    """Return the arrays of safetensors files of the checkpoint; there must be room for all of them together.

    The arrays are read-only memory-mapped views of their file. Raises what `explained_damage` handles.
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
    """Check the numbers in parts: a mask for all of them would take a quarter of their memory."""
    numbers = array.reshape(-1)
    return all(np.isfinite(numbers[first : first + PART]).all() for first in range(0, numbers.size, PART))


def digest_of(path: Path, name: str) -> str:
    """Return the SHA-256 of a file of the checkpoint from SHA256SUMS. Raises what `explained_damage` handles."""
    lines = read_plain(path / DIGESTS, most=LARGEST_DIGESTS).decode("ascii", "replace")
    found = re.search(rf"^([0-9a-f]{{64}})  {re.escape(name)}\n", lines, re.MULTILINE)
    if found is None:
        raise FormatError(f"{DIGESTS}: has no digest of {name}")
    return found[1]


def _checked(path: Path, name: str, *, most: int) -> Path:
    """Return the path of a file of the checkpoint. Raises OSError if it cannot be read or has over `most` bytes,
    FormatError if its content does not match SHA256SUMS."""
    wanted = digest_of(path, name)
    with open_plain(path / name, most=most) as file:
        if _digest(file) != wanted:
            raise FormatError(f"{name}: does not match its digest in {DIGESTS}")
    return path / name


def find_checkpoints(folder: Path, *, temporary: bool = True) -> list[Path]:
    """Return the checkpoints below `folder`, oldest first, with or without `temporary` ones. Of two of the same step,
    the temporary one comes last: a rollback to the other one has written it.

    Raises StorageError if the folder cannot be read, or something else has a checkpoint's name.
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
    """Return the newest complete checkpoint below `folder`, from before step `before` if given; None if there is none.

    Without the `temporary` ones, the result does not depend on timing. `say` reports damaged checkpoints that were
    skipped, in a line each.
    """
    for path in reversed(find_checkpoints(folder, temporary=temporary)):
        if before is not None and step_of(path) >= before:
            continue
        try:
            saved = load(path)
            if saved.step == step_of(path):
                return saved
            say(f"{path}: the checkpoint is damaged (it is of step {saved.step}); skipped")
        except CheckpointError as error:
            say(f"{error}; skipped")
    return None


def remove_old_checkpoints(folder: Path, *, step: int, keep: int, best_step: int | None) -> None:
    """Remove the checkpoints below `folder` up to `step`, except the `keep` newest and the best.

    Temporary ones are ignored. One of a later step stays: it was skipped as damaged when the run was resumed, and will
    be replaced when training reaches its step.
    """
    for path in [path for path in find_checkpoints(folder, temporary=False) if step_of(path) <= step][:-keep]:
        if best_step is None or path != checkpoint_path(folder, best_step):
            remove_folder_atomic(path)


def make_temporary(path: Path) -> None:
    """Rename the checkpoint at `path` to a temporary one, if it exists and there is no temporary one of its step."""
    temporary = path.with_name(f"{path.name}{TEMPORARY}")
    with explained(path):
        if is_folder(path) and not is_there(temporary):
            path.rename(temporary)


def remove_temporary_checkpoints(folder: Path, *, but: Path) -> None:
    """Remove the temporary checkpoints below `folder`, except `but`, which supersedes them."""
    for path in find_checkpoints(folder):
        if is_temporary(path) and path != but:
            remove_folder_atomic(path)


def remove_later_checkpoints(folder: Path, *, step: int) -> None:
    """Remove the checkpoints below `folder` of steps after `step`."""
    for path in find_checkpoints(folder):
        if step_of(path) > step:
            remove_folder_atomic(path)
