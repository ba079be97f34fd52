"""Open a GGUF file as a model: its settings in config.json form, its arrays by our names.

For the architectures in INTERLEAVED, llama.cpp pairs neighbouring channels of a head in the rotation, where Hugging
Face and this package pair the head's two halves. Their files have the rows of queries and keys in that order; reading
restores ours.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.errors import FormatError
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.interchange.chats import Say, with_chat_template
from tinygrad_chat.interchange.families import family_of
from tinygrad_chat.interchange.foreign import foreign_model
from tinygrad_chat.interchange.gguf import GGUF, read_gguf
from tinygrad_chat.interchange.huggingface_files import expect_layers, explained_files
from tinygrad_chat.interchange.sampling import sampling_of_gguf
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.parameter_table import by_name, parameter_table
from tinygrad_chat.models.weights import checked_weights
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.runs.stored import StoredArray
from tinygrad_chat.text.tokenizers.gguf import KEY, from_gguf

ARCHITECTURE = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
"""Hugging Face's architectures by llama.cpp's names."""

INTERLEAVED = ("llama", "smollm3")

GPT2_KEYS: dict[str, tuple[str, type]] = {
    "n_layer": ("block_count", int),
    "n_positions": ("context_length", int),
    "n_embd": ("embedding_length", int),
    "n_inner": ("feed_forward_length", int),
    "n_head": ("attention.head_count", int),
    "layer_norm_epsilon": ("attention.layer_norm_epsilon", float),
}
LLAMA_KEYS: dict[str, tuple[str, type]] = {
    "num_hidden_layers": ("block_count", int),
    "max_position_embeddings": ("context_length", int),
    "hidden_size": ("embedding_length", int),
    "intermediate_size": ("feed_forward_length", int),
    "num_attention_heads": ("attention.head_count", int),
    "num_key_value_heads": ("attention.head_count_kv", int),
    "head_dim": ("attention.key_length", int),
    "rms_norm_eps": ("attention.layer_norm_rms_epsilon", float),
    "rope_theta": ("rope.freq_base", float),
}
"""A config.json's settings -> GGUF's names, without the prefix of the architecture."""

NAMES = {
    "token_embedding.weight": "token_embd.weight",
    "position_embedding.weight": "position_embd.weight",
    "final_norm.gain": "output_norm.weight",
    "final_norm.bias": "output_norm.bias",
    "head.weight": "output.weight",
    "blocks.{}.attention_norm.gain": "blk.{}.attn_norm.weight",
    "blocks.{}.attention_norm.bias": "blk.{}.attn_norm.bias",
    "blocks.{}.attention.query.weight": "blk.{}.attn_q.weight",
    "blocks.{}.attention.query.bias": "blk.{}.attn_q.bias",
    "blocks.{}.attention.key.weight": "blk.{}.attn_k.weight",
    "blocks.{}.attention.key.bias": "blk.{}.attn_k.bias",
    "blocks.{}.attention.value.weight": "blk.{}.attn_v.weight",
    "blocks.{}.attention.value.bias": "blk.{}.attn_v.bias",
    "blocks.{}.attention.query_gain": "blk.{}.attn_q_norm.weight",
    "blocks.{}.attention.key_gain": "blk.{}.attn_k_norm.weight",
    "blocks.{}.attention.output.weight": "blk.{}.attn_output.weight",
    "blocks.{}.attention.output.bias": "blk.{}.attn_output.bias",
    "blocks.{}.feed_forward_norm.gain": "blk.{}.ffn_norm.weight",
    "blocks.{}.feed_forward_norm.bias": "blk.{}.ffn_norm.bias",
    "blocks.{}.feed_forward.gate.weight": "blk.{}.ffn_gate.weight",
    "blocks.{}.feed_forward.gate.bias": "blk.{}.ffn_gate.bias",
    "blocks.{}.feed_forward.expand.weight": "blk.{}.ffn_up.weight",
    "blocks.{}.feed_forward.expand.bias": "blk.{}.ffn_up.bias",
    "blocks.{}.feed_forward.contract.weight": "blk.{}.ffn_down.weight",
    "blocks.{}.feed_forward.contract.bias": "blk.{}.ffn_down.bias",
}
"""Ours -> llama.cpp's; {} is the layer."""

SKIPPED_ROTARY = 4  # llama.cpp leaves out rotary positions in every 4th layer of SmolLM3, whatever a file says
FUSED = ".attn_qkv."  # in the names of GPT-2's concatenated queries, keys and values
TURNED = (".query.weight", ".key.weight", ".query.bias", ".key.bias")
"""Suffixes of our names for the weights whose outputs are rotated."""
ROTARY_FACTORS = "rope_freqs.weight"  # the factors by which Llama 3's pairs are slowed down
LLAMA3_ROPE = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_TRAINED_CONTEXT = 8192  # Llama 3's context before it was extended; a file does not state it


def open_gguf(path: Path, *, say: Say) -> SavedModel:
    """Return the model in a file; its weights stay there, as they are stored, until they are used.

    `say` reports whatever of the model cannot be used. Raises CheckpointError, in one line, if something does not fit,
    or if the architecture, an option or a number format is not supported.
    """
    with explained_files(path):
        file = read_gguf(path)
        config = config_of(file)
        expect_layers(config, file.tensors)
        options, vocabulary = family_of(config).options_from(config)
        weights = checked_weights(options, vocabulary, to_ours(file, options))
        _expect_llama3_factors(file, options)
        settings = file.metadata
        tokenizer, sampling = from_gguf(settings, size=vocabulary), sampling_of_gguf(settings, f"{path}", say=say)
        ends = [settings.get(f"{KEY}{name}_token_id") for name in ("eos", "eot", "eom")]
        tokens = settings[f"{KEY}tokens"]
        numbers = {name: settings.get(f"{KEY}{name}_token_id") for name in ("bos", "eos")}
        names = {f"{name}_token": tokens[at] for name, at in numbers.items() if type(at) is int and at < len(tokens)}
        template = settings.get("tokenizer.chat_template")
        tokenizer = with_chat_template(tokenizer, template, names=names, ends=ends, say=say)
    return foreign_model(path, options, vocabulary, weights, tokenizer, sampling)


def config_of(file: GGUF) -> dict[str, Any]:
    """Return a file's settings in config.json form. Raises FormatError for an unknown architecture."""
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURE:
        raise FormatError(
            f"general.architecture: expected one of {', '.join(ARCHITECTURE)}, received {short_repr(architecture)}"
        )
    config: dict[str, Any] = {"architectures": [ARCHITECTURE[architecture]], "model_type": architecture}
    for name, (key, kind) in keys_of(architecture).items():
        found = file.get(f"{architecture}.{key}", kind)
        if found is not None:
            config[name] = found
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise FormatError("expected an array token_embd.weight, received none")
    config |= {"vocab_size": embedding.shape[0], "tie_word_embeddings": "output.weight" not in file.tensors}
    if architecture in INTERLEAVED:
        for name, array in (("attention_bias", "blk.0.attn_q.bias"), ("mlp_bias", "blk.0.ffn_up.bias")):
            config[name] = array in file.tensors
    scaling = _scaling(file, architecture)
    return config | ({"rope_scaling": scaling} if scaling else {})


def keys_of(architecture: str) -> Mapping[str, tuple[str, type]]:
    """Return the name and type in GGUF of each setting of an architecture, by its name in config.json."""
    return GPT2_KEYS if architecture == "gpt2" else LLAMA_KEYS


def _scaling(file: GGUF, architecture: str) -> dict[str, Any] | None:
    """Return the rotary scaling in config.json form, None if there is none."""
    factors = file.tensors.get(ROTARY_FACTORS)
    if factors is not None:
        factor = float(np.asarray(factors).max())
        return {**LLAMA3_ROPE, "factor": factor, "original_max_position_embeddings": LLAMA3_TRAINED_CONTEXT}
    kind = file.get(f"{architecture}.rope.scaling.type", str, "none")
    if kind == "none":
        return None
    found = {"rope_type": kind, "factor": file.get(f"{architecture}.rope.scaling.factor", float, 1.0)}
    original = file.get(f"{architecture}.rope.scaling.original_context_length", int)
    return found | ({"original_max_position_embeddings": original} if original else {})


def rotary_factors(options: ModelOptions) -> np.ndarray | None:
    """Return the factor by which each rotary pair is slowed down with Llama 3's scaling, None with any other."""
    return 1 / np.array(options.pair_scales, np.float32) if options.rotary_scaling == "llama3" else None


def _expect_llama3_factors(file: GGUF, options: ModelOptions) -> None:
    """Raise FormatError if the file's rotary factors are not Llama 3's."""
    there, planned = file.tensors.get(ROTARY_FACTORS), rotary_factors(options)
    if there is None or planned is None:
        return
    if there.shape != planned.shape or not np.allclose(np.asarray(there), planned, rtol=1e-3):
        raise FormatError(f"{ROTARY_FACTORS}: expected Llama 3's, received others")


def to_ours(file: GGUF, options: ModelOptions) -> dict[str, StoredArray]:
    """Return a file's arrays by our names; an unknown one keeps its name, and is refused later."""
    names = {theirs: name for name, (theirs, _) in their_names(options, vocabulary=1).items()}
    interleaved = file.metadata["general.architecture"] in INTERLEAVED
    ours: dict[str, StoredArray] = {}
    for theirs, array in _unfused(file.tensors).items():
        name = names.get(theirs, theirs)
        if interleaved and name.endswith(TURNED):
            array = array.map(array.shape, functools.partial(deinterleave, options=options))
        if theirs != ROTARY_FACTORS:
            ours[name] = array
    return ours


def _unfused(arrays: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Return the arrays with a layer's queries, keys and values split, if the file has them in one array."""
    found: dict[str, StoredArray] = {}
    for name, array in arrays.items():
        layer, fused, part = name.partition(FUSED)
        rows = array.shape[0] // 3
        if fused:
            parts = {f"{layer}.attn_{each}.{part}": array[at * rows : (at + 1) * rows] for at, each in enumerate("qkv")}
            found |= parts
        else:
            found[name] = array
    return found


def their_names(options: ModelOptions, vocabulary: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return llama.cpp's name and the shape of every parameter, by our name."""
    table = by_name(parameter_table(options, vocabulary))
    return {name: (NAMES[entry.name].format(layer), entry.shape) for name, layer, entry in table if entry.name in NAMES}


def deinterleave(rows: np.ndarray, options: ModelOptions) -> np.ndarray:
    """Reorder interleaved rows of queries or keys (H D, ...): the channels of a pair go to the head's two halves."""
    pairs = rows.reshape(-1, options.head_channels // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def interleave(rows: np.ndarray, options: ModelOptions) -> np.ndarray:
    """Reorder rows of queries or keys (H D, ...) to interleave them: the channels of a pair become neighbours."""
    halves = rows.reshape(-1, 2, options.head_channels // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
