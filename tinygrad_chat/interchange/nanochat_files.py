"""Checkpoints from and to karpathy/nanochat's weights, as safetensors files, and no others.

A file carries upstream's model_config in its metadata, under that name; for a file without it there is upstream's own
meta_<step>.json. The names are those of models/interchange.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from tinygrad_chat.backend import Compute, available_memory
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.scaling_laws import settings_of_depth
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.files import expect_plain, read_plain, write_atomic
from tinygrad_chat.interchange.nanochat import (
    CONFIG,
    from_nanochat,
    nanochat_config,
    options_from_nanochat,
    to_nanochat,
)
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.models.memory import expect_room
from tinygrad_chat.models.weights import checked_weights
from tinygrad_chat.runs.checkpoint import to_safetensors
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import SavedModel, TrainingState
from tinygrad_chat.text.tokenizers import ByteTokenizer, NumberTokenizer, Tokenizer

LARGEST_META = 16 << 20  # bytes
SPECIAL_TOKENS = 9  # the last of upstream's vocabulary; the first of them is BOS. Our files say theirs
BUFFERS = 2  # arrays as long as the parameters while a run is made: the weights, and the file that they are written to
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}  # and BF16, which NumPy does not know


def export_nanochat(saved: SavedModel, path: Path) -> int:
    """Write a checkpoint's weights to a safetensors file as upstream's; return how many tensors they are.

    Raises UsageError where the model is not nanochat's GPT.
    """
    config = nanochat_config(saved.config.model, saved.tokenizer.size)
    weights = to_nanochat(saved.weights, saved.config.model)
    metadata = {"model_config": json.dumps(config), "bos": str(saved.tokenizer.bos)}
    write_atomic(path, to_safetensors(weights, metadata))
    return len(weights)


def import_nanochat(
    path: Path, folder: RunFolder, *, meta: Path | None = None, tokenizer: Tokenizer | None = None
) -> Path:
    """Make a run of step 0 from upstream's weights in a safetensors file; return its checkpoint's path.

    `meta` is upstream's JSON file with the model_config, for a file without it. Without a `tokenizer` one is made:
    bytes where the vocabulary is theirs, else one that writes tokens as numbers. Raises CheckpointError where the file
    is no such file, UsageError where the folder holds a run already.
    """
    weights, metadata = _read_safetensors(path)
    if "token_embedding.weight" in weights:
        raise CheckpointError(f"{path}: holds weights of ours already; sample from them with: tgc sample --checkpoint")
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
        expect_plain(path, most=available_memory() // 2, follow=True)  # it is held twice: as it is, and as arrays
        with safe_open(path, framework="numpy") as file:  # refuses a header that promises more than there is
            metadata = file.metadata() or {}
        return {name: _array(**entry) for name, entry in deserialize(path.read_bytes())}, metadata
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file of floats ({error}); docs/nanochat.md says how to make one from "
            "PyTorch's"
        ) from error


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in TYPES:
        raise ValueError(f"holds {dtype}")
    return np.frombuffer(data, TYPES[dtype]).reshape(shape)


def _model_config(path: Path, metadata: Mapping[str, str], meta: Path | None) -> Mapping[str, Any]:
    source = path if meta is None else meta
    try:
        if meta is None:
            config = json.loads(metadata["model_config"])
        else:
            found = json.loads(read_plain(meta, most=LARGEST_META, follow=True))
            config = found["model_config"]
    except KeyError as error:
        raise CheckpointError(f"{source}: holds no model_config; name upstream's JSON file with --meta") from error
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{source}: model_config is not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{source}: expected model_config to be an object, received {str(config)[:40]}")
    return config
