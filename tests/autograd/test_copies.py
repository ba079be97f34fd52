"""Copies and pickles: of a leaf a leaf of its own, of a model a model of its own; what was computed is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions, Tensor, Value, ops
from tinygrad_chat.autograd import find_kernel
from tinygrad_chat.models.scalar import ScalarModel
from tinygrad_chat.nn import Parameters
from tinygrad_chat.optim import AdamW


def through_pickle(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


every_way = pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
each_of_its_own = pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
LEAVES = [lambda: Value(2.0, label="x"), lambda: Tensor(np.array([2.0, 3.0]))]


@every_way
@pytest.mark.parametrize("make", LEAVES)
def test_a_copy_of_a_leaf_is_a_leaf_of_its_own(make, duplicate):
    x = make()
    (x * x).backward() if isinstance(x, Value) else (x * x).sum().backward()
    before = np.array(x.grad)
    y = duplicate(x)
    assert type(y) is type(x)
    assert y.birth != x.birth
    assert getattr(y, "label", None) == getattr(x, "label", None)
    np.testing.assert_array_equal(y.data, x.data)
    total = x * 3 + y * 5
    total.backward() if isinstance(x, Value) else total.sum().backward()
    np.testing.assert_array_equal(x.grad, before + 3)
    np.testing.assert_array_equal(y.grad, np.full(np.shape(x.data), 5))


@every_way
@pytest.mark.parametrize("make", LEAVES)
def test_what_was_computed_is_refused(make, duplicate):
    with pytest.raises(TypeError, match=r"^copy: expected a leaf, received a computed node"):
        duplicate(make() * 3)


def batch() -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(0).integers(0, 7, (2, 5))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.profile("ci")
@each_of_its_own
@pytest.mark.parametrize("kind", [GPT, ScalarModel])
@pytest.mark.parametrize("used", [False, True])
def test_a_copied_model_computes_the_same_and_goes_its_own_way(kind, used, duplicate):
    model = kind(7, ModelOptions(layers=1, heads=1, width=4, context=4))
    if used:
        model.loss(*batch()).backward()
        model.parameters()
    twin = duplicate(model)
    assert twin.loss(*batch()).item() == model.loss(*batch()).item()
    np.testing.assert_array_equal(twin.parameters().gradient, model.parameters().gradient)
    before = model.parameters().state()
    twin.parameters().zero_gradient()
    twin.loss(*batch()).backward()
    AdamW(twin.parameters()).step(0.1)
    for name, array in model.parameters().state().items():
        np.testing.assert_array_equal(array, before[name])
    assert twin.loss(*batch()).item() < model.loss(*batch()).item()  # the step reached what the twin computes with


@each_of_its_own
def test_weights_that_are_shared_or_of_another_type_stay_so(duplicate):
    model = GPT(7, ModelOptions(layers=1, heads=1, width=4, context=4, tied=True))
    model.parameters()
    twin = duplicate(model)
    assert twin.head.weight is twin.token_embedding.weight
    assert np.shares_memory(twin.head.weight.data, twin.parameters().data)
    assert np.shares_memory(twin.head.weight.grad, twin.parameters().gradient)
    assert twin.compute == model.compute
    assert twin.blocks[0].feed_forward.activation is ops.gelu  # by which kernels are found
    assert find_kernel(twin.blocks[0].feed_forward.activation, None, np.ones(1)) is not None


@each_of_its_own
def test_a_model_and_its_optimiser_stay_together(duplicate):
    model = GPT(7, ModelOptions(layers=1, heads=1, width=4, context=4))
    twin, optimizer = duplicate((model, AdamW(model.parameters())))
    assert optimizer.parameters is twin.parameters()


def test_parameters_have_no_shallow_copy():
    with pytest.raises(TypeError, match="cannot be shallow-copied; use deepcopy"):
        copy.copy(Parameters({"x": Tensor([1.0])}))
