"""Convert karpathy/nanochat's weights to our names and back, so that either program can continue the other's model.

Shapes agree and nothing is transposed. One thing differs: upstream rotates pairs by minus the angle, we by plus.
Swapping the halves of each head turns one into the other, so the rows of queries and keys are swapped in conversion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import numpy as np

from tinygrad_chat.errors import UsageError
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.options import SMEAR_CHANNELS, ModelOptions
from tinygrad_chat.models.parameter_table import by_name, parameter_table
from tinygrad_chat.schema import Bounds, Count

NAMES = {
    "token_embedding.weight": "transformer.wte.weight",
    "head.weight": "lm_head.weight",
    "value_embeddings.{}.weight": "value_embeds.{}.weight",
    "blocks.{}.attention.query.weight": "transformer.h.{}.attn.c_q.weight",
    "blocks.{}.attention.key.weight": "transformer.h.{}.attn.c_k.weight",
    "blocks.{}.attention.value.weight": "transformer.h.{}.attn.c_v.weight",
    "blocks.{}.attention.value_gate.weight": "transformer.h.{}.attn.ve_gate.weight",
    "blocks.{}.attention.output.weight": "transformer.h.{}.attn.c_proj.weight",
    "blocks.{}.feed_forward.expand.weight": "transformer.h.{}.mlp.c_fc.weight",
    "blocks.{}.feed_forward.contract.weight": "transformer.h.{}.mlp.c_proj.weight",
    "residual_scales": "resid_lambdas",
    "embedding_scales": "x0_lambdas",
    "smear_gate.weight": "smear_gate.weight",
    "smear_scale": "smear_lambda",
    "backout_scale": "backout_lambda",
}
"""Ours -> upstream's; {} is the layer."""

COMPILED = "_orig_mod."  # prefix of the names of weights saved from a compiled model

CONFIG = {
    "sequence_len": "context",
    "n_layer": "layers",
    "n_head": "heads",
    "n_kv_head": "key_value_heads",
    "n_embd": "width",
    "window_pattern": "window_pattern",
}
"""Upstream's model_config -> our options; its vocab_size is handled apart."""


def to_nanochat(arrays: Mapping[str, np.ndarray], options: ModelOptions) -> dict[str, np.ndarray]:
    """Return arrays by parameter, such as weights or gradients, under upstream's names."""
    names = _upstream_names(options)
    return {names[name]: swapped(name, array, options) for name, array in arrays.items()}


def from_nanochat(arrays: Mapping[str, np.ndarray], options: ModelOptions) -> dict[str, np.ndarray]:
    """Return upstream's arrays by our names; an unknown one keeps its name, and `Parameters.load` refuses it."""
    ours = {theirs: name for name, theirs in _upstream_names(options).items()}
    renamed = {name.removeprefix(COMPILED): array for name, array in arrays.items()}
    renamed = {ours.get(name, name): array for name, array in renamed.items()}
    return {name: swapped(name, array, options) for name, array in renamed.items()}


def _upstream_names(options: ModelOptions) -> dict[str, str]:
    """Return upstream's name for every parameter, by ours."""
    table = parameter_table(options, vocabulary=1)  # the names are the same for any vocabulary
    return {name: NAMES[entry.name].replace("{}", str(layer)) for name, layer, entry in by_name(table)}


def swapped(name: str, array: np.ndarray, options: ModelOptions) -> np.ndarray:
    """Swap the two halves of every head's rows in queries and keys; return other arrays unchanged."""
    D = options.head_channels
    if not name.endswith((".query.weight", ".key.weight")) or array.ndim != 2 or len(array) % D:
        return array
    heads = array.reshape(-1, 2, D // 2, *array.shape[1:])
    return np.ascontiguousarray(heads[:, ::-1].reshape(array.shape))


class ModelConfig(TypedDict):
    """The settings in upstream's model_config that determine the model."""

    sequence_len: Count
    n_layer: Count
    n_head: Count
    n_kv_head: Count
    n_embd: Count
    window_pattern: str
    vocab_size: Annotated[int, Bounds(minimum=2)]


def options_from_nanochat(config: ModelConfig) -> tuple[ModelOptions, int]:
    """Return the options and vocabulary of upstream's model_config. Raises ConfigError if the options are invalid."""
    chosen: Mapping[str, Any] = config
    return ModelOptions(**NANOCHAT | {ours: chosen[theirs] for theirs, ours in CONFIG.items()}), config["vocab_size"]


def nanochat_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    """Return upstream's model_config for a model. Raises UsageError if an option differs from upstream's."""
    chosen = {**dataclasses.asdict(options), "dropout": 0.0, "head_width": None, "feed_forward_width": None}
    same = {**dataclasses.asdict(ModelOptions(**NANOCHAT)), **{name: chosen[name] for name in CONFIG.values()}}
    for name, value in same.items():
        if chosen[name] != value:
            raise UsageError(
                f"nanochat's GPT has {name} {value}, this model {chosen[name]}; train one with --model nanochat"
            )
    upstream = dataclasses.replace(options, head_width=None, feed_forward_width=None)
    for name in ("head_channels", "feed_forward_channels"):
        if getattr(options, name) != getattr(upstream, name):
            option = name.replace("channels", "width")
            raise UsageError(
                f"nanochat's GPT has {option} {getattr(upstream, name)} at width {options.width} with {options.heads} "
                f"heads, this model {getattr(options, name)}; train one without --{option.replace('_', '-')}"
            )
    if options.width < SMEAR_CHANNELS or not options.layers:
        raise UsageError(
            f"nanochat's GPT has at least one layer and a width of {SMEAR_CHANNELS}, this model {options.layers} and "
            f"{options.width}"
        )
    config = {theirs: chosen[ours] for theirs, ours in CONFIG.items()}
    return {**config, "n_kv_head": options.key_value_heads or options.heads, "vocab_size": vocabulary}
