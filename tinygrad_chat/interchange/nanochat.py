"""karpathy/nanochat's weights by its names and ours: a model of one can go on in the other.

Shapes agree and nothing is transposed. One thing differs: upstream turns rotary pairs by minus the angle, ours by plus.
To swap the halves of a head changes one into the other, so the rows of queries and keys are swapped on the way.
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

COMPILED = "_orig_mod."  # before the names of weights that were saved from a compiled model

CONFIG = {
    "sequence_len": "context",
    "n_layer": "layers",
    "n_head": "heads",
    "n_kv_head": "key_value_heads",
    "n_embd": "width",
    "window_pattern": "window_pattern",
}
"""Upstream's model_config -> ours; its vocab_size stands beside."""


def to_nanochat(arrays: Mapping[str, np.ndarray], options: ModelOptions) -> dict[str, np.ndarray]:
    """Return arrays of the model's parameters, such as weights or gradients, by upstream's names."""
    names = _upstream_names(options)
    return {names[name]: swapped(name, array, options) for name, array in arrays.items()}


def from_nanochat(arrays: Mapping[str, np.ndarray], options: ModelOptions) -> dict[str, np.ndarray]:
    """Return upstream's arrays by our names, an unknown one by its own, for `Parameters.load`, which refuses what does
    not fit."""
    ours = {theirs: name for name, theirs in _upstream_names(options).items()}
    renamed = {name.removeprefix(COMPILED): array for name, array in arrays.items()}
    renamed = {ours.get(name, name): array for name, array in renamed.items()}
    return {name: swapped(name, array, options) for name, array in renamed.items()}


def _upstream_names(options: ModelOptions) -> dict[str, str]:
    """Return upstream's name for every parameter, by ours."""
    table = parameter_table(options, vocabulary=1)  # the names are those of any vocabulary
    return {name: NAMES[entry.name].replace("{}", str(layer)) for name, layer, entry in by_name(table)}


def swapped(name: str, array: np.ndarray, options: ModelOptions) -> np.ndarray:
    """Swap the two halves of every head's rows in queries and keys; other arrays stay."""
    D = options.head_channels
    if not name.endswith((".query.weight", ".key.weight")) or array.ndim != 2 or len(array) % D:
        return array
    heads = array.reshape(-1, 2, D // 2, *array.shape[1:])
    return np.ascontiguousarray(heads[:, ::-1].reshape(array.shape))


class ModelConfig(TypedDict):
    """Upstream's model_config, as far as a model follows from it."""

    sequence_len: Count
    n_layer: Count
    n_head: Count
    n_kv_head: Count
    n_embd: Count
    window_pattern: str
    vocab_size: Annotated[int, Bounds(minimum=2)]


def options_from_nanochat(config: ModelConfig) -> tuple[ModelOptions, int]:
    """Return the options and the vocabulary that upstream's model_config stands for. Raises ConfigError where no model
    has such options."""
    chosen: Mapping[str, Any] = config
    return ModelOptions(**NANOCHAT | {ours: chosen[theirs] for theirs, ours in CONFIG.items()}), config["vocab_size"]


def nanochat_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    """Return upstream's model_config for a model. Raises UsageError where an option is not upstream's."""
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
