"""Adapters of low rank: they begin by changing nothing, are all that is trained, and merge into the weights."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import GPT, ModelOptions, ops
from tinygrad_chat.autograd import kernels_of
from tinygrad_chat.autograd.check import check_exactly, check_numerically
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.models.lora import merge, with_adapters
from tinygrad_chat.models.memory import least_memory
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.scalar import ScalarModel
from tinygrad_chat.models.size import count_parameters, count_trained_parameters
from tinygrad_chat.models.weights import draw_weights
from tinygrad_chat.optim import AdamW

V, RANK = 7, 2
PLAIN = ModelOptions(layers=2, heads=2, width=8, context=6, bias=True)
UPSTREAM = ModelOptions(**{**NANOCHAT, "layers": 2, "heads": 2, "width": 24, "context": 6})
random = np.random.default_rng(0)
tokens, targets = random.integers(0, V, (2, 3, 6))

IN_FLOAT64: tuple[Any, ...] = functools.partial(GPT, dtype=np.float64), ScalarModel
every_engine = pytest.mark.parametrize("engine", [GPT, ScalarModel])
every_engine_in_float64 = pytest.mark.parametrize("engine", IN_FLOAT64, ids=["GPT", "ScalarModel"])
every_shape = pytest.mark.parametrize("plain", [PLAIN, UPSTREAM], ids=["mini-gpt", "nanochat"])


def adapted(plain: ModelOptions) -> ModelOptions:
    return dataclasses.replace(plain, lora=RANK, lora_alpha=3.0)


def base_of(plain: ModelOptions) -> dict[str, np.ndarray]:
    """Weights of which none is 0, as if they had been trained."""
    drawn = draw_weights(plain, V, np.random.default_rng(1))
    return {name: (array + 0.1 * random.normal(size=array.shape)).astype(np.float32) for name, array in drawn.items()}


def learned(options: ModelOptions, base: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same beside adapters that have learned something."""
    weights = with_adapters(options, V, base, np.random.default_rng(2))
    return {
        name: random.normal(size=array.shape).astype(np.float32) if name.endswith("lora_b") else array
        for name, array in weights.items()
    }


@pytest.mark.profile("ci")
@every_shape
@every_engine
def test_at_first_a_model_with_adapters_gives_the_very_logits_of_the_one_without(engine: Any, plain: ModelOptions):
    base = base_of(plain)
    model = engine(V, adapted(plain), weights=with_adapters(adapted(plain), V, base, random))
    np.testing.assert_array_equal(model.token_logits(tokens), engine(V, plain, weights=base).token_logits(tokens))


@pytest.mark.profile("ci")
@every_shape
@every_engine_in_float64
def test_merged_weights_give_the_logits_of_the_adapters(engine: Any, plain: ModelOptions):
    base = base_of(plain)
    weights = learned(adapted(plain), base)
    merged = merge(adapted(plain), V, weights)
    found = engine(V, plain, weights=merged).token_logits(tokens)
    beside = engine(V, adapted(plain), weights=weights).token_logits(tokens)
    np.testing.assert_allclose(found, beside, atol=1e-5)
    assert np.abs(beside - engine(V, plain, weights=base).token_logits(tokens)).max() > 0.01
    assert merged["token_embedding.weight"] is weights["token_embedding.weight"]


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_every_set_of_kernels_computes_their_loss_and_gradient(kernel_set: str):
    weights = learned(adapted(PLAIN), base_of(PLAIN))
    found = []
    for name in ("reference", kernel_set):
        model = GPT(V, adapted(PLAIN), weights=weights, dtype=np.float64)
        with kernels_of(name):
            model.loss(tokens, targets).backward()
        found.append(model.parameters().gradient)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.profile("ci")
@every_shape
def test_both_engines_have_the_same_loss_and_gradient(plain: ModelOptions):
    weights = learned(adapted(plain), base_of(plain))
    models = [engine(V, adapted(plain), weights=weights) for engine in IN_FLOAT64]
    losses = [model.loss(tokens, targets) for model in models]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    first, second = (model.parameters().gradient for model in models)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-12 * np.abs(second).max())


def test_their_gradient_is_exact():
    weight, bias = random.normal(size=(4, 3)), random.normal(size=4)

    def layer(x: Any, lora_a: Any, lora_b: Any) -> Any:
        return ops.add(ops.linear(x, weight, bias), ops.multiply(ops.linear(ops.linear(x, lora_a), lora_b), 1.5))

    inputs = [random.normal(size=shape) for shape in ((5, 3), (2, 3), (4, 2))]
    check_exactly(layer, *inputs)
    check_numerically(layer, *inputs)


@every_engine
def test_a_step_changes_adapters_alone_and_nothing_is_remembered_of_the_rest(engine: Any):
    options, base = adapted(PLAIN), base_of(PLAIN)
    model = engine(V, options, weights=learned(options, base))
    optimizer, before = AdamW(model.parameters()), model.parameters().state()
    model.loss(tokens, targets).backward()
    optimizer.step(0.01)
    after = model.parameters().state()
    assert after.keys() == before.keys() == base.keys() | {name for name in after if ".lora_" in name}
    for name, array in after.items():
        assert np.array_equal(array, before[name]) == (name in base), name
    assert {array.size for array in optimizer.state().values()} == {1, model.parameters().size}
    assert model.parameters().size == count_trained_parameters(options, V) < count_parameters(PLAIN, V) / 3


@every_engine
def test_a_loaded_state_is_computed_with_the_weights_beside_the_adapters_too(engine: Any):
    options = adapted(PLAIN)
    model, other = (engine(V, options, weights=learned(options, base_of(PLAIN))) for _ in range(2))
    assert np.any(model.token_logits(tokens) != other.token_logits(tokens))
    other.parameters().load(model.parameters().state())
    np.testing.assert_array_equal(model.token_logits(tokens), other.token_logits(tokens))


def test_a_copy_has_weights_of_its_own():
    model = GPT(V, adapted(PLAIN), weights=learned(adapted(PLAIN), base_of(PLAIN)))
    model.parameters()
    other, before = copy.deepcopy(model), model.token_logits(tokens)
    other.parameters().load({name: 0 * array for name, array in other.parameters().state().items()})
    assert not other.token_logits(tokens).any()
    np.testing.assert_array_equal(model.token_logits(tokens), before)


def test_memory_is_counted_for_what_is_trained():
    options = dataclasses.replace(ModelOptions(), lora=8)
    whole, beside = (least_memory(each, 4096, buffers=4) for each in (ModelOptions(), options))
    numbers = count_parameters(ModelOptions(), 4096)
    assert beside - 4 * (numbers + 4 * count_trained_parameters(options, 4096)) == whole - 4 * 4 * numbers
    assert beside < 0.35 * whole


def test_adapters_that_are_there_stay():
    weights = learned(adapted(PLAIN), base_of(PLAIN))
    found = with_adapters(adapted(PLAIN), V, weights, random)
    assert all(found[name] is array for name, array in weights.items())


def test_weights_that_do_not_fit_are_refused():
    weights = learned(adapted(PLAIN), base_of(PLAIN))
    del weights["blocks.0.attention.query.lora_b"]
    with pytest.raises(CheckpointError, match=r"missing blocks\.0\.attention\.query\.lora_b"):
        merge(adapted(PLAIN), V, weights)
