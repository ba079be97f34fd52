"""Export a model as a GGUF file, for llama.cpp and the programs built on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.errors import ConfigError, UsageError
from tinygrad_chat.interchange.exporting import end_tokens, exported_tokenizer, exported_turns
from tinygrad_chat.interchange.families import family_for
from tinygrad_chat.interchange.family import Family
from tinygrad_chat.interchange.gguf_blocks import NUMBER_OF, TYPES
from tinygrad_chat.interchange.gguf_model import (
    ARCHITECTURE,
    FUSED,
    INTERLEAVED,
    ROTARY_FACTORS,
    SKIPPED_ROTARY,
    TURNED,
    interleave,
    keys_of,
    rotary_factors,
    their_names,
)
from tinygrad_chat.interchange.gguf_writing import write_gguf
from tinygrad_chat.interchange.sampling import gguf_sampling
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations.jinja import chat_template
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.text.tokenizers.gguf import KEY, to_gguf

FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
"""GGUF's number for the type of most of a file's arrays."""


def expect_gguf(saved: SavedModel) -> tuple[Family, BPETokenizer, dict[str, Any]]:
    """Return the family that a model belongs to, its tokenizer, and the tokenizer's settings in GGUF. Raises UsageError
    if it cannot be exported."""
    options, tokenizer = saved.config.model, exported_tokenizer(saved)
    family = family_for(options, tokenizer.size)
    if family.name not in ARCHITECTURE or options.window_of(0) is not None:
        windowed = " with a window" if family.name in ARCHITECTURE else ""
        raise UsageError(f"llama.cpp has no such model: {family.name}{windowed}")
    if family.name == "smollm3" and options.no_rotary_every != SKIPPED_ROTARY:
        raise UsageError(f"llama.cpp's smollm3 has --no-rotary-every {SKIPPED_ROTARY}, not {options.no_rotary_every}")
    try:
        return family, tokenizer, to_gguf(tokenizer)
    except ConfigError as error:
        raise UsageError(f"tokenizer: {error}") from error


def export_gguf(saved: SavedModel, path: Path, kind: str = "F32") -> int:
    """Write a model as a file, its matrices stored as F32, F16, BF16 or Q8_0; return the number of arrays.

    A matrix whose rows are not whole blocks of Q8_0 is stored as F16, a vector as F32. Raises UsageError if llama.cpp
    has no such model, or splits text differently from its tokenizer.
    """
    options, turns = saved.config.model, exported_turns(saved)
    family, tokenizer, words = expect_gguf(saved)
    settings = {
        "general.architecture": family.name,
        "general.name": saved.name,
        "general.file_type": np.uint32(FILE_TYPES[kind]),
        **gguf_sampling(saved.sampling),
        **_settings(family, options, tokenizer.size),
        **words,
        f"{KEY}eos_token_id": np.uint32(end_tokens(saved, tokenizer)[0]),
        **({"tokenizer.chat_template": chat_template(turns)} if turns else {}),
    }
    arrays = _arrays(saved, family, tokenizer.size)
    write_gguf(path, settings, arrays, {name: _stored_as(array.shape, kind) for name, array in arrays.items()})
    return len(arrays)


def _settings(family: Family, options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    """Return a model's sizes as GGUF settings of its architecture."""
    config = family.config_of(options, vocabulary)
    found: dict[str, Any] = {"vocab_size": np.uint32(vocabulary)}
    for name, (key, kind) in keys_of(family.name).items():
        found[key] = np.uint32(config[name]) if kind is int else float(config[name])
    if options.positions == "rotary":
        found |= {key: np.uint32(options.head_channels) for key in ("attention.value_length", "rope.dimension_count")}
    if options.rotary_scaling in ("linear", "yarn"):
        found |= {"rope.scaling.type": options.rotary_scaling, "rope.scaling.factor": float(options.rotary_factor)}
    if options.rotary_scaling == "yarn":
        found["rope.scaling.original_context_length"] = np.uint32(options.original_context)
    return {f"{family.name}.{key}": value for key, value in found.items()}


def _arrays(saved: SavedModel, family: Family, vocabulary: int) -> dict[str, Any]:
    """Return a model's weights by llama.cpp's names, with rows in its order."""
    options = saved.config.model
    whole = dataclasses.replace(options, vocabulary_multiple=1, lora=None, **family.always)
    arrays: dict[str, Any] = {}
    for name, (theirs, shape) in their_names(whole, vocabulary).items():
        array = saved.weights[name][: shape[0]] if name in saved.weights else np.zeros(shape, np.float32)
        if family.name in INTERLEAVED and name.endswith(TURNED):
            array = interleave(np.asarray(array), options)
        arrays[theirs] = array
    if family.name == "gpt2":
        arrays = _fused(arrays, options)
    factors = rotary_factors(options)
    return arrays | ({} if factors is None else {ROTARY_FACTORS: factors})


def _fused(arrays: Mapping[str, Any], options: ModelOptions) -> dict[str, Any]:
    """Return the arrays with the rows of each layer's queries, keys and values concatenated."""
    found = dict(arrays)
    for layer in range(options.layers):
        for part in ("weight", "bias"):
            rows = [np.asarray(found.pop(f"blk.{layer}.attn_{letter}.{part}")) for letter in "qkv"]
            found[f"blk.{layer}{FUSED}{part}"] = np.concatenate(rows)
    return found


def _stored_as(shape: tuple[int, ...], kind: str) -> str:
    if len(shape) == 1:
        return "F32"
    return "F16" if shape[-1] % TYPES[NUMBER_OF[kind]].numbers else kind
