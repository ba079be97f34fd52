"""Import and export karpathy/nanochat's weights, as safetensors files only.

A file carries upstream's model_config in its metadata, under that name; for a file without it, upstream's own
meta_<step>.json is read. The names of the weights are in interchange/nanochat.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np

from tinygrad_chat.backend import Compute, available_memory
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.scaling_laws import settings_of_depth
from tinygrad_chat.errors import CheckpointError, FormatError
from tinygrad_chat.files import write_atomic
from tinygrad_chat.formatting import memory_size
from tinygrad_chat.interchange.nanochat import (
    CONFIG,
    ModelConfig,
    from_nanochat,
    nanochat_config,
    options_from_nanochat,
    to_nanochat,
)
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.models.memory import expect_room
from tinygrad_chat.models.weights import checked_weights
from tinygrad_chat.runs.arrays import FLOATS, map_file, read_header, to_safetensors
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import SavedModel, TrainingState
from tinygrad_chat.schema import parse_json, read_json
from tinygrad_chat.text.tokenizers import ByteTokenizer, NumberTokenizer, Tokenizer

SPECIAL_TOKENS = 9  # the last ones of upstream's vocabulary, BOS the first of them; our files state their BOS
BUFFERS = 2  # arrays the size of the parameters while a run is made: the weights, and the file they are written to
BYTES_A_NUMBER = 4  # in these arrays


class Meta(TypedDict):
    """The part of upstream's meta_<step>.json that a model needs."""

    model_config: ModelConfig


def export_nanochat(saved: SavedModel, path: Path) -> int:
    """Write a checkpoint's weights to a safetensors file under upstream's names; return the number of tensors.

    Raises UsageError if the model is not nanochat's GPT.
    """
    config = nanochat_config(saved.config.model, saved.tokenizer.size)
    weights = to_nanochat(saved.weights, saved.config.model)
    metadata = {"model_config": json.dumps(config), "bos": str(saved.tokenizer.bos)}
    write_atomic(path, to_safetensors(weights, metadata))
    return len(weights)


def import_nanochat(
    path: Path, folder: RunFolder, *, meta: Path | None = None, tokenizer: Tokenizer | None = None
) -> Path:
    """Create a run at step 0 from upstream's weights in a safetensors file; return its checkpoint's path.

    `meta` is upstream's JSON file with the model_config, for a file without it. The default `tokenizer` is a byte
    tokenizer if the vocabulary has its size, else one that writes tokens as numbers. Raises CheckpointError if the file
    is invalid, UsageError if the folder already holds a run.
    """
    weights, metadata = _read_safetensors(path)
    if "token_embedding.weight" in weights:
        raise CheckpointError(
            f"{path}: already holds tinygrad_chat weights; sample from them with: tgc sample --checkpoint"
        )
    options, vocabulary = options_from_nanochat(_model_config(path, metadata, meta))
    if tokenizer is None:
        found = metadata.get("bos", "")
        known = found.isascii() and found.isdecimal() and len(found) < 9 and int(found) < vocabulary
        bos = int(found) if known else max(0, vocabulary - SPECIAL_TOKENS)
        tokenizer = ByteTokenizer() if vocabulary == ByteTokenizer.size else NumberTokenizer(vocabulary, bos)
    if tokenizer.size != vocabulary:
        raise CheckpointError(f"{path}: expected a tokenizer of {vocabulary} tokens, received one of {tokenizer.size}")
    expect_room(options, vocabulary, buffers=BUFFERS)
    ours = checked_weights(options, vocabulary, from_nanochat(weights, options))
    shape = {name: getattr(options, name) for name in CONFIG.values()}
    settings = settings_of_depth({"depth": options.layers, **shape}, vocabulary)
    config = TrainingConfig.of(
        **{**settings, "model": "nanochat", "warmup": min(settings["warmup"], settings["steps"])}
    )
    as_saved = {name: np.ascontiguousarray(array, np.float32) for name, array in ours.items()}
    state = TrainingState(config=config, tokenizer=tokenizer, weights=as_saved, optimizer={})
    folder.create()
    folder.write_config(config)
    folder.write_environment({**describe_environment(Compute.choose("numpy")), "imported": path.name}, step=0)
    saved = state.save(folder.checkpoints)
    folder.write_outcome("imported", step=0, seconds=0.0, reason=f"imported from {path.name}")
    return saved


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """Return a file's arrays, bfloat16 widened to float32, and its metadata."""
    try:
        most = available_memory()
        header = read_header(path, follow=True)
        needed = header.memory + BUFFERS * BYTES_A_NUMBER * header.size
        if needed > most:
            raise CheckpointError(
                f"{path}: its {header.size:,} numbers and the run made from them take at least "
                f"{memory_size(needed)}, and only {memory_size(most)} are available here"
            )
        return map_file(path, most=most, types=FLOATS, follow=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except FormatError as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file of floats ({error}); docs/nanochat.md says how to make one from "
            "PyTorch's"
        ) from error


def _model_config(path: Path, metadata: Mapping[str, str], meta: Path | None) -> ModelConfig:
    """Return upstream's model_config, from the metadata or from upstream's own JSON file."""
    if meta is None:
        if "model_config" not in metadata:
            raise CheckpointError(f"{path}: holds no model_config; name upstream's JSON file with --meta")
        return parse_json(metadata["model_config"], ModelConfig, source=f"{path}: model_config")
    try:
        return read_json(meta, Meta, follow=True)["model_config"]
    except OSError as error:
        raise CheckpointError(f"{meta}: cannot be read ({error.strerror or error})") from error
