"""The known model families, and which of them a model belongs to. No file is touched here.

A config.json names its family: `family_of`. Our own model belongs to the first family that has all of its options:
`family_for`. docs/interchange.md lists what each family has, and what is refused.
"""

from __future__ import annotations

from typing import Any

from tinygrad_chat.errors import FormatError, UsageError
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.interchange.family import Family
from tinygrad_chat.interchange.family_configs import (
    SLIDING,
    Config,
    biases_from,
    expect,
    gpt2_config,
    llama_config,
    no_rotary_from,
    options_from_gpt2,
    options_from_llama,
    read_llama,
    window_from,
)
from tinygrad_chat.interchange.rope import SOURCE
from tinygrad_chat.models.options import ModelOptions

LINEAR = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.expand": "mlp.up_proj",
    "feed_forward.contract": "mlp.down_proj",
}
LLAMA_NAMES = {
    "token_embedding.weight": "model.embed_tokens.weight",
    "blocks.{}.attention_norm.gain": "model.layers.{}.input_layernorm.weight",
    "blocks.{}.feed_forward_norm.gain": "model.layers.{}.post_attention_layernorm.weight",
    **{
        f"blocks.{{}}.{ours}.{part}": f"model.layers.{{}}.{theirs}.{part}"
        for ours, theirs in LINEAR.items()
        for part in ("weight", "bias")
    },
    "final_norm.gain": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
QWEN3_NAMES = {
    **LLAMA_NAMES,
    "blocks.{}.attention.query_gain": "model.layers.{}.self_attn.q_norm.weight",
    "blocks.{}.attention.key_gain": "model.layers.{}.self_attn.k_norm.weight",
}
NANOCHAT_NAMES = {
    **LLAMA_NAMES,
    "blocks.{}.feed_forward.expand.weight": "model.layers.{}.mlp.fc1.weight",
    "blocks.{}.feed_forward.contract.weight": "model.layers.{}.mlp.fc2.weight",
}
GPT2_LINEAR = {
    "attention.query": "attn.c_attn",
    "attention.key": "attn.c_attn",
    "attention.value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward.expand": "mlp.c_fc",
    "feed_forward.contract": "mlp.c_proj",
}
GPT2_NORMS = {
    "blocks.{}.attention_norm": "transformer.h.{}.ln_1",
    "blocks.{}.feed_forward_norm": "transformer.h.{}.ln_2",
    "final_norm": "transformer.ln_f",
}
GPT2_NAMES = {
    "token_embedding.weight": "transformer.wte.weight",
    "position_embedding.weight": "transformer.wpe.weight",
    **{f"{ours}.gain": f"{theirs}.weight" for ours, theirs in GPT2_NORMS.items()},
    **{f"{ours}.bias": f"{theirs}.bias" for ours, theirs in GPT2_NORMS.items()},
    **{
        f"blocks.{{}}.{ours}.{part}": f"transformer.h.{{}}.{theirs}.{part}"
        for ours, theirs in GPT2_LINEAR.items()
        for part in ("weight", "bias")
    },
    "head.weight": "lm_head.weight",
}


def _llama(config: Config) -> tuple[ModelOptions, int]:
    c = read_llama(config)
    if c.hidden_size % c.num_attention_heads:  # transformers refuses this even if head_dim is given
        expect("num_attention_heads", c.num_attention_heads, (f"a divisor of hidden_size {c.hidden_size}",))
    return ModelOptions(**options_from_llama(c), bias=biases_from(c)), c.vocab_size


def _llama_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    return {**llama_config(options, vocabulary), "attention_bias": options.bias, "mlp_bias": options.bias}


def _qwen2(config: Config) -> tuple[ModelOptions, int]:
    c = read_llama(config, max_position_embeddings=32768, sliding_window=4096, max_window_layers=28)
    return ModelOptions(**options_from_llama(c), window=window_from(c), query_key_value_bias=True), c.vocab_size


def _qwen3(config: Config) -> tuple[ModelOptions, int]:
    defaults = {"head_dim": 128, "max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28}
    c = read_llama(config, **defaults)
    expect("attention_bias", c.attention_bias, (False,))
    return ModelOptions(**options_from_llama(c), window=window_from(c), qk_norm=1.0, qk_gain=True), c.vocab_size


def _qwen_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    window = options.window_of(0)
    return {
        **llama_config(options, vocabulary),
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": options.layers if window is None else 0,  # the first layer with the window
    }


def _smollm3(config: Config) -> tuple[ModelOptions, int]:
    defaults = {"max_position_embeddings": 32768, "rope_theta": 2_000_000.0, "tie_word_embeddings": True}
    c = read_llama(config, **defaults)
    if c.use_sliding_window and c.layer_types is None:
        expect("sliding_window", c.sliding_window, (None,))  # it would apply only to the layers without rotary
    options = options_from_llama(c)
    no_rotary = no_rotary_from(c)
    return ModelOptions(**options, window=window_from(c), bias=biases_from(c), no_rotary_every=no_rotary), c.vocab_size


def _smollm3_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    window = options.window_of(0)
    sliding = {"use_sliding_window": True, "sliding_window": window, "layer_types": [SLIDING] * options.layers}
    return {
        **_llama_config(options, vocabulary),
        "no_rope_layers": [int(options.has_rotary(layer)) for layer in range(options.layers)],
        "no_rope_layer_interval": options.no_rotary_every or options.layers + 1,
        **(sliding if window is not None else {}),
    }


def _nanochat(config: Config) -> tuple[ModelOptions, int]:
    c = read_llama(config, hidden_act="relu2", final_logit_softcapping=15.0)
    expect("attention_bias", c.attention_bias, (False,))
    options = {
        **options_from_llama(c, activation="relu2"),
        "norm_gain": False,
        "activation": "squared_relu",
        "qk_norm": 1.0,
        "embedding_norm": True,
        "soft_cap": c.final_logit_softcapping,
    }
    # There the norm comes after the rotation and cancels YaRN's factor.
    expect("rope_type", options.get("rotary_scaling", "none"), ("none", "linear", "llama3"))
    return ModelOptions(**options), c.vocab_size


def _nanochat_config(options: ModelOptions, vocabulary: int) -> dict[str, Any]:
    cap = {"final_logit_softcapping": options.soft_cap}
    return {**llama_config(options, vocabulary), "hidden_act": "relu2", "attention_bias": False, **cap}


FAMILIES = {
    family.name: family
    for family in (
        Family("llama", "LlamaForCausalLM", _llama, _llama_config, LLAMA_NAMES, "model."),
        Family("qwen2", "Qwen2ForCausalLM", _qwen2, _qwen_config, LLAMA_NAMES, "model."),
        Family("qwen3", "Qwen3ForCausalLM", _qwen3, _qwen_config, QWEN3_NAMES, "model."),
        Family("smollm3", "SmolLM3ForCausalLM", _smollm3, _smollm3_config, LLAMA_NAMES, "model."),
        Family(
            "gpt2",
            "GPT2LMHeadModel",
            options_from_gpt2,
            gpt2_config,
            GPT2_NAMES,
            "transformer.",
            transposed=frozenset(f"blocks.{{}}.{name}.weight" for name in GPT2_LINEAR),
            always={"bias": True},
        ),
        Family("nanochat", "NanoChatForCausalLM", _nanochat, _nanochat_config, NANOCHAT_NAMES, "model.", swapped=True),
    )
}
"""By the model_type in config.json."""


def family_of(config: Config) -> Family:
    """Return the family that a config.json names. Raises FormatError if it is unknown."""
    named = config.get("architectures") or config.get("model_type")
    architectures = named if isinstance(named, list) else [named]
    for family in FAMILIES.values():
        if architectures in ([family.architecture], [family.name]):
            return family
    known = ", ".join(family.architecture for family in FAMILIES.values())
    raise FormatError(f"{SOURCE}: architectures: expected one of {known}, received {short_repr(named)}")


def family_for(options: ModelOptions, vocabulary: int) -> Family:
    """Return the family that our own model belongs to. Raises UsageError if no family has all of its options; the
    error says how it differs from the closest one."""
    for family in FAMILIES.values():
        if not family.differences(options, vocabulary):
            return family
    closest = min(FAMILIES.values(), key=lambda family: len(family.differences(options, vocabulary)))
    raise UsageError(
        f"no model family of other programs has all options of this model: {closest.name} comes closest, with "
        f"{closest.differences(options, vocabulary)[0]}"
    )
