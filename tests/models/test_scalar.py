"""Parity: the scalar engine and the tensor engine are one model, to the rounding of float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.autograd import no_grad
from tinygrad_chat.errors import ConfigError, ShapeError
from tinygrad_chat.models import scalar
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.scalar import ScalarModel, estimate_step_seconds
from tinygrad_chat.optim import SGD, AdamW

V, STEPS = 7, 20
TINY: dict[str, Any] = {"layers": 1, "heads": 2, "width": 4, "context": 4}
GRID: list[dict[str, Any]] = [
    {"norm": norm, "activation": activation, "tied": tied}
    for norm, activation, tied in itertools.product(("layernorm", "rmsnorm"), ("gelu", "squared_relu"), (True, False))
]
FURTHER: list[dict[str, Any]] = [
    {"norm": "none"},
    {"positions": "rotary", "bias": True},
    {"positions": "none", "key_value_heads": 1},
    {"window": 2, "soft_cap": 1.5, "layers": 2},
    {"layers": 0},
    {"norm": "rmsnorm", "norm_gain": False, "norm_epsilon": 0.1, "embedding_norm": True},
    {"positions": "rotary", "rotary_base": 10.0, "qk_norm": 1.2},
    {"smear": True, "vocabulary_multiple": 4, "tied": False},
    {"residual_scales": True, "backout": True, "layers": 2},
    {"value_embeddings": True, "key_value_heads": 1},
    {"window": 2, "window_pattern": "Sl", "layers": 3},
    {**NANOCHAT, "layers": 4, "window": 2},
    {"document_mask": True, "document_token": 3},
    {"document_mask": True, "document_token": 2, "positions": "rotary", "window": 2, "layers": 2},
    {**NANOCHAT, "document_mask": True, "document_token": 1, "layers": 2},
    {"head_width": 3, "feed_forward_width": 5, "bias": True},
    {"activation": "swiglu", "norm": "rmsnorm", "query_key_value_bias": True},
    {"positions": "rotary", "qk_norm": 0.8, "qk_gain": True, "key_value_heads": 1, "head_width": 6},
    {"positions": "rotary", "no_rotary_every": 2, "layers": 2, "activation": "swiglu", "bias": True},
    {"positions": "rotary", "head_width": 8, "rotary_scaling": "linear", "rotary_factor": 3.0, "rotary_base": 9.0},
    {"positions": "rotary", "head_width": 8, "rotary_scaling": "llama3", "rotary_base": 9.0, "rotary_slow_turns": 0.01},
    {"positions": "rotary", "head_width": 8, "rotary_scaling": "yarn", "rotary_base": 9.0, "rotary_fast_turns": 2.0},
    {
        "positions": "rotary",
        "qk_norm": 1.0,
        "qk_gain": True,
        "rotary_scaling": "yarn",
        "rotary_original_context": 9,
        "rotary_attention_factor": 1.5,
    },
    {"positions": "rotary", "qk_norm": 1.0, "rotary_scaling": "yarn"},
    {**NANOCHAT, "heads": 3, "key_value_heads": 1, "head_width": 6, "feed_forward_width": 3},
]
OPTIMIZERS = {"adamw": (AdamW, 0.01), "sgd": (SGD, 0.05)}

random = np.random.default_rng(0)
batches = [random.integers(0, V, (2, 5)) for _ in range(STEPS)]


def losses(model: Any, optimizer: str, rate: float) -> list[float]:
    parameters = model.parameters()
    kind = OPTIMIZERS[optimizer][0](parameters)
    found = []
    for batch in batches:
        parameters.zero_gradient()
        loss = model.loss(batch[:, :-1], batch[:, 1:])
        loss.backward()
        kind.step(rate)
        found.append(loss.item())
    return found


def build(kind: Any, variant: dict[str, Any], **more: Any) -> Any:
    model = kind(V, ModelOptions(**{**TINY, **variant}), random=np.random.default_rng(1), **more)
    # Every parameter off its first value, so that gains and biases matter.
    model.parameters().data[:] += 0.3 * np.random.default_rng(2).normal(size=model.parameters().size)
    return model


@pytest.mark.profile("ci")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("variant", [*GRID, *FURTHER], ids=str)
def test_losses_over_20_steps_agree_to_1e_9_in_float64_and_1e_3_in_float32(variant: dict[str, Any], optimizer: str):
    rate = OPTIMIZERS[optimizer][1]
    scalar = losses(build(ScalarModel, variant), optimizer, rate)
    np.testing.assert_allclose(losses(build(GPT, variant, dtype=np.float64), optimizer, rate), scalar, atol=1e-9)
    np.testing.assert_allclose(losses(build(GPT, variant), optimizer, rate), scalar, atol=1e-3)
    assert scalar[0] != scalar[-1]


@pytest.mark.parametrize("variant", [*GRID[:2], *FURTHER], ids=str)
def test_next_token_logits_agree_with_and_without_a_cache(variant: dict[str, Any]):
    scalar, tensor = build(ScalarModel, variant), build(GPT, variant, dtype=np.float64)
    tokens = batches[0][:, :4]
    expected = tensor.next_token_logits(tokens)
    np.testing.assert_allclose(scalar.next_token_logits(tokens), expected, atol=1e-9)
    cache = scalar.new_cache(2)
    for position in range(4):
        logits = scalar.next_token_logits(tokens[:, position : position + 1], cache)
    np.testing.assert_allclose(logits, expected, atol=1e-9)  # pyright: ignore[reportPossiblyUnboundVariable]


def test_weights_of_either_engine_load_into_the_other():
    scalar, tensor = build(ScalarModel, {}), GPT(V, ModelOptions(**TINY))
    tensor.parameters().load(scalar.parameters().state())
    np.testing.assert_allclose(tensor.parameters().data, scalar.parameters().data, rtol=1e-6)
    scalar.parameters().load(tensor.parameters().state())
    np.testing.assert_array_equal(tensor.parameters().data, scalar.parameters().data)


def test_gradients_add_up_in_the_buffer_until_it_is_zeroed():
    model = build(ScalarModel, {})
    seen = []
    for _ in range(2):
        model.loss(batches[0][:, :-1], batches[0][:, 1:]).backward()
        seen.append(model.parameters().gradient.copy())
    np.testing.assert_allclose(seen[1], 2 * seen[0], rtol=1e-12)


def test_bigram_runs_on_values_too():
    model = ScalarModel(V, ModelOptions(**{**TINY, "layers": 0, "positions": "none"}))
    logits = model.next_token_logits(np.array([[1, 2, 3]]))
    np.testing.assert_array_equal(logits, model.next_token_logits(np.array([[6, 3]])))  # the last token decides


def test_what_the_scalar_engine_lacks_is_said_and_what_overflows_is_not_finite():
    with pytest.raises(ConfigError, match="--dropout: expected 0 in scalar mode"):
        ScalarModel(V, ModelOptions(**TINY, dropout=0.5))
    model = build(ScalarModel, {"norm": "none", "activation": "squared_relu"})
    with pytest.raises(ShapeError, match="at most 4 tokens"):
        model.next_token_logits(np.zeros((1, 5), int))
    model.parameters().data[:] = 1e60
    loss = model.loss(batches[0][:, :-1], batches[0][:, 1:])
    loss.backward()
    assert not math.isfinite(loss.item())


@pytest.mark.parametrize("shape", [TINY, {**TINY, "context": 48}, {**TINY, "width": 16, "layers": 2}], ids=str)
def test_the_estimate_counts_about_as_many_products_as_the_graph_holds(
    shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    ticks = iter(range(10))
    monkeypatch.setattr(scalar.time, "perf_counter", lambda: 64 * 64 * next(ticks))  # a product seems to take a second
    options = ModelOptions(**shape)
    estimated = estimate_step_seconds(options, vocabulary=V, tokens=options.context)
    model = ScalarModel(V, options)
    tokens = np.random.default_rng(0).integers(0, V, (1, options.context + 1))
    loss: Any = model.loss(tokens[:, :-1], tokens[:, 1:])
    edges = sum(len(node.parents) for node in below(loss.value))
    assert 0.5 < estimated / (edges / 2) < 2  # a product has two parents


def below(root: Any) -> list[Any]:
    found, waiting = {id(root): root}, [root]
    while waiting:
        for parent in waiting.pop().parents:
            if id(parent) not in found:
                found[id(parent)] = parent
                waiting.append(parent)
    return list(found.values())


def test_evaluation_and_sampling_keep_no_graph():
    model = build(ScalarModel, {})
    with no_grad():
        model.loss(batches[0][:, :-1], batches[0][:, 1:]).backward()
    assert not model.parameters().gradient.any()
    cache = model.new_cache(1)
    for token in (1, 2, 3):
        model.next_token_logits(np.array([[token]]), cache)
    kept = [number for tokens in cache.rows[0].keys[0] for head in tokens for number in head]
    assert kept
    assert all(not number.parents for number in kept)
