"""Convert each family's settings, as in its config.json, to our options and back. No file is touched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.errors import FormatError
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.interchange.rope import SOURCE, Rope, options_from_rope, rope_of
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.schema import Amount, Count, Positive, checked

Config = Mapping[str, Any]


def expect(key: str, value: Any, known: Collection[Any]) -> None:
    """Raise FormatError, naming the key, for a value that is not among those known."""
    if value not in known:
        expected = " or ".join(str(each) for each in known)
        raise FormatError(f"{SOURCE}: {key}: expected {expected}, received {short_repr(value)}", key=key)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The settings in a config.json of Llama or one of its descendants that determine the model."""

    vocab_size: Positive
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Count
    num_attention_heads: Positive
    num_key_value_heads: Positive | None
    head_dim: Positive | None
    max_position_embeddings: Positive
    hidden_act: str
    rms_norm_eps: Amount
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    rope_theta: Amount | None
    rope_scaling: Rope | None
    rope_parameters: Rope | None
    partial_rotary_factor: Amount | None
    original_max_position_embeddings: Positive | None
    use_sliding_window: bool
    sliding_window: Positive | None
    max_window_layers: Count
    layer_types: list[str] | None
    no_rope_layers: list[int] | None
    no_rope_layer_interval: Positive | None
    final_logit_softcapping: Amount | None


LLAMA: Config = {
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": None,
    "rope_scaling": None,
    "rope_parameters": None,
    "partial_rotary_factor": None,
    "original_max_position_embeddings": None,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 0,
    "layer_types": None,
    "no_rope_layers": None,
    "no_rope_layer_interval": None,
    "final_logit_softcapping": None,
}
"""The defaults of transformers for Llama; some families have others."""

SMOLLM3_INTERVAL = 4
FULL, SLIDING = "full_attention", "sliding_attention"


def read_llama(config: Config, **defaults: Any) -> LlamaConfig:
    """Return the checked settings of a descendant of Llama whose class has these `defaults`."""
    expect("quantization_config", config.get("quantization_config"), (None,))
    return checked({**LLAMA, **defaults, **config}, LlamaConfig, source=SOURCE)


def options_from_llama(c: LlamaConfig, activation: str = "silu") -> dict[str, Any]:
    """Return the options that Llama's descendants share. Raises FormatError for what our GPT does not support."""
    expect("hidden_act", c.hidden_act, (activation,))
    if c.head_dim is None and c.hidden_size % c.num_attention_heads:
        raise FormatError(
            f"{SOURCE}: num_attention_heads: expected a divisor of hidden_size {c.hidden_size}, "
            f"received {c.num_attention_heads}"
        )
    rope: Rope = {**(c.rope_scaling or c.rope_parameters or {})}
    rope.setdefault("partial_rotary_factor", c.partial_rotary_factor)
    if c.original_max_position_embeddings is not None:
        rope["original_max_position_embeddings"] = c.original_max_position_embeddings
    return {
        "layers": c.num_hidden_layers,
        "heads": c.num_attention_heads,
        "key_value_heads": c.num_key_value_heads,
        "head_width": c.head_dim or c.hidden_size // c.num_attention_heads,
        "width": c.hidden_size,
        "feed_forward_width": c.intermediate_size,
        "context": c.max_position_embeddings,
        "norm": "rmsnorm",
        "norm_epsilon": c.rms_norm_eps,
        "activation": "swiglu",
        "tied": c.tie_word_embeddings,
        **options_from_rope(rope, theta=c.rope_theta or 10000.0, context=c.max_position_embeddings),
    }


def window_from(c: LlamaConfig) -> int | None:
    """Return how many positions every layer sees, None for all. Raises FormatError if layers differ."""
    if not c.use_sliding_window or c.sliding_window is None or c.sliding_window >= c.max_position_embeddings:
        return None
    kinds = c.layer_types
    if kinds is None:
        kinds = [SLIDING if layer >= c.max_window_layers else FULL for layer in range(c.num_hidden_layers)]
    kinds = kinds[: c.num_hidden_layers]
    if len(set(kinds)) > 1:
        raise FormatError(f"{SOURCE}: layer_types: expected layers of one kind, received {FULL} beside {SLIDING}")
    return c.sliding_window if kinds[:1] == [SLIDING] else None


def biases_from(c: LlamaConfig) -> bool:
    """Return whether all linear layers of a block have biases. Raises FormatError if only some do."""
    expect("attention_bias", c.attention_bias, (c.mlp_bias,))
    return c.mlp_bias


def no_rotary_from(c: LlamaConfig) -> int | None:
    """Return n if every n-th layer has no rotary positions, None if all have. Raises FormatError for other patterns."""
    if c.no_rope_layers is None:
        every = c.no_rope_layer_interval or SMOLLM3_INTERVAL
        return every if every <= c.num_hidden_layers else None
    turned = [bool(each) for each in c.no_rope_layers[: c.num_hidden_layers]]
    every = turned.index(False) + 1 if False in turned else None
    if turned != [every is None or (layer + 1) % every != 0 for layer in range(c.num_hidden_layers)]:
        raise FormatError(f"{SOURCE}: no_rope_layers: expected a 0 for each n-th layer and a 1 for all others")
    return every


def llama_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    """Return the settings of a model that Llama's descendants share."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": options.width,
        "intermediate_size": options.feed_forward_channels,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "num_key_value_heads": options.key_value_heads or options.heads,
        "head_dim": options.head_channels,
        "max_position_embeddings": options.context,
        "hidden_act": "silu",
        "rms_norm_eps": options.norm_epsilon,
        "tie_word_embeddings": options.tied,
        "attention_dropout": 0.0,
        **rope_of(options),
    }


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """The settings in a config.json of GPT-2 that determine the model."""

    vocab_size: Positive
    n_embd: Positive
    n_layer: Count
    n_head: Positive
    n_positions: Positive
    n_inner: Positive | None
    activation_function: str
    layer_norm_epsilon: Amount
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool
    add_cross_attention: bool
    tie_word_embeddings: bool


GPT2: Config = {
    "n_positions": 1024,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""The defaults of transformers for GPT-2."""


def options_from_gpt2(config: Config) -> tuple[ModelOptions, int]:
    """Return a GPT-2's options and vocabulary. Raises FormatError for what our GPT does not support."""
    c = checked({**GPT2, **config}, GPT2Config, source=SOURCE)
    expect("quantization_config", config.get("quantization_config"), (None,))
    expect("activation_function", c.activation_function, ("gelu_new", "gelu_pytorch_tanh"))
    expect("scale_attn_weights", c.scale_attn_weights, (True,))
    expect("scale_attn_by_inverse_layer_idx", c.scale_attn_by_inverse_layer_idx, (False,))
    expect("add_cross_attention", c.add_cross_attention, (False,))
    options = ModelOptions(
        layers=c.n_layer,
        heads=c.n_head,
        width=c.n_embd,
        feed_forward_width=c.n_inner,
        context=c.n_positions,
        norm_epsilon=c.layer_norm_epsilon,
        tied=c.tie_word_embeddings,
        bias=True,
    )
    return options, c.vocab_size


def gpt2_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    """Return a model's settings for a config.json of GPT-2."""
    return {
        "vocab_size": vocabulary,
        "n_embd": options.width,
        "n_layer": options.layers,
        "n_head": options.heads,
        "n_positions": options.context,
        "n_inner": options.feed_forward_channels,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": options.norm_epsilon,
        "tie_word_embeddings": options.tied,
    }
