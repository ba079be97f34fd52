"""Families of other programs: settings and weights both ways, and what is none of them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.errors import CheckpointError, FormatError, UsageError
from tinygrad_chat.interchange.families import FAMILIES, family_for, family_of
from tinygrad_chat.models.weights import draw_weights

V = 11
SMALL: dict[str, Any] = {"layers": 2, "heads": 4, "width": 16, "context": 8}
RMS: dict[str, Any] = {**SMALL, "norm": "rmsnorm", "activation": "swiglu", "positions": "rotary"}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {**SMALL, "bias": True}),
    "our own default": ("gpt2", SMALL),
    "Llama": ("llama", {**RMS, "tied": False, "key_value_heads": 2}),
    "Llama with biases": ("llama", {**RMS, "bias": True, "feed_forward_width": 24}),
    "Llama 3.1": ("llama", {**RMS, "rotary_scaling": "llama3", "rotary_factor": 4.0}),
    "linear": ("llama", {**RMS, "rotary_scaling": "linear"}),
    "Qwen2": ("qwen2", {**RMS, "query_key_value_bias": True}),
    "Qwen2 with a window": ("qwen2", {**RMS, "query_key_value_bias": True, "window": 3, "rotary_scaling": "yarn"}),
    "Qwen3": ("qwen3", {**RMS, "qk_norm": 1.0, "qk_gain": True, "head_width": 6}),
    "SmolLM3": ("smollm3", {**RMS, "no_rotary_every": 2}),
    "SmolLM3 with a window": ("smollm3", {**RMS, "no_rotary_every": 2, "window": 4}),
    "NanoChat": (
        "nanochat",
        {
            **RMS,
            "activation": "squared_relu",
            "norm_gain": False,
            "qk_norm": 1.0,
            "embedding_norm": True,
            "soft_cap": 15.0,
            "tied": False,
        },
    ),
}

every_model = pytest.mark.parametrize(("family", "chosen"), MODELS.values(), ids=MODELS)


@every_model
def test_a_model_goes_out_and_comes_back_with_the_same_logits(family: str, chosen: dict[str, Any]):
    options = ModelOptions(**chosen, vocabulary_multiple=4)
    weights = draw_weights(options, V, np.random.default_rng(1))
    weights = {name: array + 0.3 * np.float32(len(name) % 5) * np.cos(array) for name, array in weights.items()}
    found = family_for(options, V)
    assert found.name == family
    config = found.config_of(options, V)
    back = family_of(config)
    theirs, vocabulary = back.options_from(config)
    assert (back, vocabulary) == (found, V)
    arrays = found.weights_to(weights, options, V)
    ours = found.weights_from(arrays, theirs, V)
    tokens = np.random.default_rng(2).integers(0, V, (2, 8))
    expected = GPT(V, options, weights=weights).token_logits(tokens)
    np.testing.assert_allclose(GPT(V, theirs, weights=ours).token_logits(tokens), expected, rtol=1e-5, atol=1e-5)
    again = found.weights_to(ours, theirs, V)
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_each_matrix_has_the_name_of_its_part():
    """Two of one shape that were swapped would go out and come back unnoticed."""
    block = "model.layers.1"
    expected = {
        "attention.query.weight": "self_attn.q_proj.weight",
        "attention.key.weight": "self_attn.k_proj.weight",
        "attention.value.weight": "self_attn.v_proj.weight",
        "attention.output.weight": "self_attn.o_proj.weight",
        "attention.query_gain": "self_attn.q_norm.weight",
        "attention.key_gain": "self_attn.k_norm.weight",
        "feed_forward.gate.weight": "mlp.gate_proj.weight",
        "feed_forward.expand.weight": "mlp.up_proj.weight",
        "feed_forward.contract.weight": "mlp.down_proj.weight",
        "attention_norm.gain": "input_layernorm.weight",
        "feed_forward_norm.gain": "post_attention_layernorm.weight",
    }
    sources = FAMILIES["qwen3"].sources(ModelOptions(**MODELS["Qwen3"][1]), V)
    for ours, theirs in expected.items():
        assert sources[f"blocks.1.{ours}"].name == f"{block}.{theirs}"
    gpt2 = FAMILIES["gpt2"].sources(ModelOptions(**MODELS["GPT-2"][1]), V)
    assert gpt2["blocks.0.attention_norm.bias"].name == "transformer.h.0.ln_1.bias"
    assert gpt2["blocks.0.feed_forward.expand.weight"].name == "transformer.h.0.mlp.c_fc.weight"
    nanochat = FAMILIES["nanochat"].sources(ModelOptions(**MODELS["NanoChat"][1]), V)
    assert nanochat["blocks.0.feed_forward.contract.weight"].name == "model.layers.0.mlp.fc2.weight"


def test_rotary_pairs_of_nanochat_turn_the_other_way():
    options = ModelOptions(**NANOCHAT)
    weights = draw_weights(options, V)
    query = FAMILIES["nanochat"].weights_to(weights, options, V)["model.layers.0.self_attn.q_proj.weight"]
    ours = weights["blocks.0.attention.query.weight"]
    np.testing.assert_array_equal(query[:4], ours[[2, 3, 0, 1]])  # a head of 4 channels


def test_weights_lie_where_the_sources_say_and_are_views():
    family = FAMILIES["gpt2"]
    options = ModelOptions(**SMALL, bias=True)
    arrays = family.weights_to(draw_weights(options, V), options, V)
    sources = family.sources(options, V)
    assert {source.name: source.shape for source in sources.values()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert arrays["transformer.h.0.attn.c_attn.weight"].shape == (16, 48)
    key = family.weights_from(arrays, options, V)["blocks.0.attention.key.weight"]
    assert np.shares_memory(key, arrays["transformer.h.0.attn.c_attn.weight"])
    np.testing.assert_array_equal(key, arrays["transformer.h.0.attn.c_attn.weight"][:, 16:32].T)


def test_names_without_the_prefix_buffers_and_a_tied_head_are_taken_for_what_they_are():
    family, options = FAMILIES["gpt2"], ModelOptions(**SMALL, bias=True)
    arrays = family.weights_to(draw_weights(options, V), options, V)
    bare: dict[str, Any] = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    bare |= {"h.0.attn.bias": np.ones((1, 1, 8, 8)), "lm_head.weight": arrays["transformer.wte.weight"]}
    assert family.weights_from(bare, options, V).keys() == draw_weights(options, V).keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("model.norm.weight"), r"^llama: missing model\.norm\.weight, unknown none$"),
        (
            lambda arrays: arrays.update({"model.layers.0.self_attn.q_proj.bias": np.ones(16)}),
            r"^llama: missing none, unknown model\.layers\.0\.self_attn\.q_proj\.bias$",
        ),
        (
            lambda arrays: arrays.update({"model.norm.weight": np.ones(15)}),
            r"^llama: model\.norm\.weight is \(15,\), expected \(16,\)$",
        ),
    ],
    ids=["missing", "unknown", "another shape"],
)
def test_weights_that_do_not_fit_are_refused_by_their_names(change: Any, message: str):
    options = ModelOptions(**RMS)
    arrays = FAMILIES["llama"].weights_to(draw_weights(options, V), options, V)
    change(arrays)
    with pytest.raises(CheckpointError, match=message):
        FAMILIES["llama"].weights_from(arrays, options, V)


def config_of(name: str, **changed: Any) -> dict[str, Any]:
    family, chosen = MODELS[name]
    return {**FAMILIES[family].config_of(ModelOptions(**chosen), V), **changed}


YARN = {"rope_type": "yarn", "factor": 4.0}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Llama", {"architectures": ["GemmaForCausalLM"]}, "architectures: expected one of LlamaForCausalLM, "),
    ("Llama", {"architectures": [["LlamaForCausalLM"]]}, "architectures: expected one of"),
    ("Llama", {"architectures": 3}, "architectures: expected one of"),
    ("Llama", {"hidden_act": "gelu"}, "hidden_act: expected silu, received 'gelu'"),
    ("Llama", {"attention_bias": True}, "attention_bias: expected False, received True"),
    ("Llama", {"hidden_size": 0}, "hidden_size: expected at least 1, received 0"),
    ("Llama", {"hidden_size": "16"}, "hidden_size: expected a whole number, received '16'"),
    ("Llama", {"num_attention_heads": 3}, "num_attention_heads: expected a divisor of hidden_size 16, received 3"),
    ("Llama", {"quantization_config": {"bits": 4}}, "quantization_config: expected None, received"),
    ("Llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type: expected one of default, linear, ll"),
    ("Llama", {"rope_parameters": {**YARN, "truncate": False}}, "rope_parameters.truncate: expected true, received f"),
    ("Llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: expected 1, received 0.5"),
    ("Llama", {"rope_scaling": [1]}, "rope_scaling: expected an object or null"),
    ("Qwen3", {"attention_bias": True}, "attention_bias: expected False, received True"),
    (
        "Qwen2 with a window",
        {"max_window_layers": 1},
        "layer_types: expected layers of one kind, received full_attention beside sliding_attention",
    ),
    ("SmolLM3", {"no_rope_layers": [0, 1]}, "no_rope_layers: expected a 0 for each n-th layer and a 1 for all others"),
    ("NanoChat", {"hidden_act": "silu"}, "hidden_act: expected relu2, received 'silu'"),
    ("NanoChat", {"rope_scaling": YARN}, "rope_type: expected none or linear or llama3, received 'yarn'"),
    ("GPT-2", {"activation_function": "gelu"}, "activation_function: expected gelu_new or gelu_pytorch_tanh, received"),
    ("GPT-2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: expected False"),
]


@pytest.mark.parametrize(("name", "changed", "message"), REFUSED, ids=lambda each: str(each)[:40])
def test_settings_that_our_gpt_does_not_have_are_refused_in_one_line(name: str, changed: dict[str, Any], message: str):
    config = config_of(name, **changed)
    with pytest.raises(FormatError, match=f"^config.json: {re.escape(message)}") as caught:
        family_of(config).options_from(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"])
def test_a_size_that_is_missing_is_named(key: str):
    config = config_of("Llama")
    del config[key]
    with pytest.raises(FormatError, match=f"^config.json: has no {key}$"):
        family_of(config).options_from(config)


def test_a_family_is_known_by_its_model_type_too():
    config = config_of("Qwen3")
    del config["architectures"]
    assert family_of(config) is FAMILIES["qwen3"]


def test_a_model_of_no_family_is_refused_with_what_is_amiss_with_the_closest():
    with pytest.raises(UsageError, match=r"^no model family .*: llama comes closest, with --smear False and not True$"):
        family_for(ModelOptions(**RMS, smear=True), V)
    with pytest.raises(UsageError, match=r"^a qwen3 has --qk-norm 1\.0 and not 1\.2$"):
        FAMILIES["qwen3"].config_of(ModelOptions(**{**MODELS["Qwen3"][1], "qk_norm": 1.2}), V)


NANOCHAT = MODELS["NanoChat"][1]
LLAMA3 = {**RMS, "rotary_scaling": "llama3"}
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "layers": (RMS, 3),
    "heads": (RMS, 2),
    "head_width": (RMS, 8),
    "key_value_heads": (RMS, 2),
    "width": (RMS, 32),
    "feed_forward_width": (RMS, 9),
    "context": (RMS, 9),
    "norm": (RMS, "layernorm"),
    "norm_gain": (NANOCHAT, True),
    "norm_epsilon": (RMS, 1e-4),
    "activation": (RMS, "squared_relu"),
    "positions": (RMS, "none"),
    "rotary_base": (RMS, 9.0),
    "rotary_scaling": (RMS, "linear"),
    "rotary_factor": ({**RMS, "rotary_scaling": "linear"}, 3.0),
    "rotary_original_context": (LLAMA3, 3),
    "rotary_slow_turns": (LLAMA3, 0.5),
    "rotary_fast_turns": (LLAMA3, 9.0),
    "rotary_attention_factor": ({**RMS, "rotary_scaling": "yarn"}, 1.5),
    "no_rotary_every": (RMS, 2),
    "qk_norm": (NANOCHAT, 1.2),
    "qk_gain": (NANOCHAT, True),
    "tied": (RMS, False),
    "bias": (RMS, True),
    "query_key_value_bias": (RMS, True),
    "window": ({**RMS, "query_key_value_bias": True}, 2),
    "window_pattern": ({**RMS, "query_key_value_bias": True, "window": 3}, "SL"),
    "soft_cap": (NANOCHAT, 2.0),
    "embedding_norm": (NANOCHAT, False),
    "smear": (RMS, True),
    "residual_scales": (RMS, True),
    "value_embeddings": (RMS, True),
    "backout": (RMS, True),
}
SAME = {"dropout", "document_mask", "document_token", "vocabulary_multiple", "lora", "lora_alpha", "initialisation"}
"""Of no account once a model is trained; lora is merged before."""


@pytest.mark.parametrize("name", CHANGES)
def test_no_option_that_makes_another_model_is_passed_over(name: str):
    """A model with another value belongs to the family no more, or has another config.json."""
    chosen, value = CHANGES[name]
    before, after = (family_config(ModelOptions(**each)) for each in (chosen, {**chosen, name: value}))
    assert before is not None
    assert before != after


def test_no_option_is_left_out_of_these():
    assert {field.name for field in dataclasses.fields(ModelOptions)} == CHANGES.keys() | SAME


def family_config(options: ModelOptions) -> dict[str, Any] | None:
    try:
        return family_for(options, V).config_of(options, V)
    except UsageError:
        return None
