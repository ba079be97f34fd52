"""The files of a Hugging Face folder: its JSON, and the arrays of its safetensors files, which are memory-mapped.

config.json                     the architecture and its sizes
model.safetensors               all arrays or, if sharded, model.safetensors.index.json: the file of each array
tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json

The index is untrusted input, so the file names in it may only be plain names within the folder. No pickle is ever
read: reading one can run any program.
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
MAX_SHARDS = 1 << 10
LARGEST_INDEX = 32 << 20  # bytes
SHARD = re.compile(r"[\w-][\w.-]{0,200}\.safetensors", re.ASCII)


class Index(TypedDict):
    """The file of each array in a sharded folder."""

    weight_map: dict[str, str]


@contextmanager
def explained_files(path: Path) -> Iterator[None]:
    """Turn the errors of reading another program's model at `path` into a CheckpointError of one line."""
    try:
        yield
    except OSError as error:
        missing = error.filename or path
        raise CheckpointError(f"{missing}: cannot be read ({error.strerror or error})") from error
    except (ConfigError, FormatError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def is_pickle(path: Path) -> bool:
    """Return whether a file is, by its name, a pickle or a PyTorch file, which holds one."""
    return path.suffix.lower() in PICKLES


def no_pickle(path: Path) -> CheckpointError:
    """Return the error for a model that exists only as a pickle."""
    return CheckpointError(
        f"{path}: is a pickle, which can run any code when loaded, and is never loaded here; save the model as "
        "safetensors, as save_pretrained of transformers does"
    )


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON file in a folder, {} if there is no such file. Raises OSError and FormatError."""
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
    """Raise FormatError for more layers than arrays: looping over an absurd number of layers would never end."""
    for key in ("num_hidden_layers", "n_layer"):
        layers = config.get(key)
        if isinstance(layers, int) and layers > len(arrays):
            raise FormatError(f"{CONFIG}: {key}: {layers:,} layers cannot be in {len(arrays):,} arrays")


def _sharded(folder: Path) -> dict[str, StoredArray]:
    places = read_json(folder / INDEX, Index, source=INDEX, most=LARGEST_INDEX, follow=True)["weight_map"]
    shards = sorted(set(places.values()))
    if len(shards) > MAX_SHARDS:
        raise FormatError(f"{INDEX}: expected at most {MAX_SHARDS:,} files, received {len(shards):,}")
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
    """Raise FormatError unless a file holds exactly the arrays that the index lists for it."""
    listed = {name for name, place in places.items() if place == shard}
    if listed != found.keys():
        absent, strange = short_list(sorted(listed - found.keys())), short_list(sorted(found.keys() - listed))
        raise FormatError(f"{shard}: does not hold what {INDEX} says: missing {absent}, not listed {strange}")
