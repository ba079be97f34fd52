"""The files of a Hugging Face folder: its JSON, and the arrays of its safetensors files, which stay there until used.

config.json                     which architecture it is, and its sizes
model.safetensors               all arrays or, of several files, model.safetensors.index.json: which stands in which
tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json

Names of files come from a file that anybody may have written, so they are names within the folder and nothing else.
No pickle is ever read: to read one is to run a program.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from tinygrad_chat.errors import CheckpointError, ConfigError, FormatError
from tinygrad_chat.files import is_there, list_folder
from tinygrad_chat.formatting import short_list, short_repr
from tinygrad_chat.runs.arrays import FLOATS, map_stored
from tinygrad_chat.runs.stored import StoredArray
from tinygrad_chat.schema import read_json

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MOST_SHARDS = 1 << 10
LARGEST_INDEX = 32 << 20  # bytes
SHARD = re.compile(r"[\w-][\w.-]{0,200}\.safetensors", re.ASCII)


class Index(TypedDict):
    """In which file of a folder each array stands."""

    weight_map: dict[str, str]


@contextmanager
def explained_files(path: Path) -> Iterator[None]:
    """Turn what reading another program's model at `path` may raise into a CheckpointError in one line."""
    try:
        yield
    except OSError as error:
        missing = error.filename or path
        raise CheckpointError(f"{missing}: cannot be read ({error.strerror or error})") from error
    except (ConfigError, FormatError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def is_pickle(path: Path) -> bool:
    """Return whether a file's name is that of a pickle, or of PyTorch's files, which hold one."""
    return path.suffix.lower() in PICKLES


def no_pickle(path: Path) -> CheckpointError:
    """Return the error for a model that is there as a pickle alone."""
    return CheckpointError(
        f"{path}: is a pickle, which can run any program when it is read, and is never read here; save the model as "
        "safetensors, as save_pretrained of transformers does"
    )


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Return what a JSON file of a folder holds, nothing where there is none. Raises OSError and FormatError."""
    path = folder / name
    return read_json(path, dict[str, Any], source=name, follow=True) if is_there(path, follow=True) else {}


def map_arrays(folder: Path) -> dict[str, StoredArray]:
    """Return every array of a folder by name. Raises OSError, FormatError and, for a pickle, CheckpointError."""
    if is_there(folder / INDEX, follow=True):
        return _sharded(folder)
    if not is_there(folder / WEIGHTS, follow=True):
        pickles = [path for path in list_folder(folder, follow=True) if is_pickle(path)]
        if pickles:
            raise no_pickle(pickles[0])
        raise FormatError(f"expected a {WEIGHTS} or a {INDEX}, received neither")
    return map_stored(folder / WEIGHTS, types=FLOATS, follow=True)[0]


def expect_layers(config: Mapping[str, Any], arrays: Collection[str]) -> None:
    """Raise FormatError for more layers than there are arrays: to go through them all would take without end."""
    for key in ("num_hidden_layers", "n_layer"):
        layers = config.get(key)
        if isinstance(layers, int) and layers > len(arrays):
            raise FormatError(f"{CONFIG}: {key}: {layers:,} layers cannot stand in {len(arrays):,} arrays")


def _sharded(folder: Path) -> dict[str, StoredArray]:
    places = read_json(folder / INDEX, Index, source=INDEX, most=LARGEST_INDEX, follow=True)["weight_map"]
    shards = sorted(set(places.values()))
    if len(shards) > MOST_SHARDS:
        raise FormatError(f"{INDEX}: expected at most {MOST_SHARDS:,} files, received {len(shards):,}")
    arrays: dict[str, StoredArray] = {}
    for shard in shards:
        if not SHARD.fullmatch(shard):
            raise FormatError(f"{INDEX}: expected names of safetensors files beside it, received {short_repr(shard)}")
        if not is_there(folder / shard, follow=True):
            raise FormatError(f"{shard} is missing, one of {len(shards):,} files that hold the weights; copy it, too")
        found = map_stored(folder / shard, types=FLOATS, follow=True)[0]
        _expect_listed(found, places, shard)
        arrays |= found
    return arrays


def _expect_listed(found: Mapping[str, StoredArray], places: Mapping[str, str], shard: str) -> None:
    """Raise FormatError unless a file holds the arrays that the index says, and no other."""
    listed = {name for name, place in places.items() if place == shard}
    if listed != found.keys():
        absent, strange = short_list(sorted(listed - found.keys())), short_list(sorted(found.keys() - listed))
        raise FormatError(f"{shard}: does not hold what {INDEX} says: missing {absent}, not listed {strange}")
