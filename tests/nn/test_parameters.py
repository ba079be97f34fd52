"""Parameters: one buffer, seen through many names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.places import needs_compiler, open_place
from tinygrad_chat import Tensor
from tinygrad_chat.autograd import computing_with, kernels_of
from tinygrad_chat.backend import Compute, load_kernels
from tinygrad_chat.errors import CheckpointError, ShapeError
from tinygrad_chat.nn import GradientBuffer, LayerNorm, Linear, Module, NewGradient, Parameters
from tinygrad_chat.optim.adamw import adamw_update


class Pair(Module):
    """Two layers around a norm; the last uses the first's weight again."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.norm = LayerNorm(3)
        self.layers = [Linear(3, 3, random=random), Linear(3, 3, random=random)]
        self.tied = Linear(3, 3, bias=False, random=random)
        self.tied.weight = self.layers[0].weight

    def __call__(self, x: Any) -> Any:
        first, second = self.layers
        return self.tied(second(self.norm(first(x))))


@pytest.fixture
def model() -> Pair:
    return Pair()


@pytest.fixture
def parameters(model: Pair) -> Parameters:
    return model.parameters()


def test_matrices_come_first_in_order_of_definition_and_a_tied_weight_once(parameters):
    assert list(parameters) == [
        "layers.0.weight",
        "layers.1.weight",
        "norm.gain",
        "norm.bias",
        "layers.0.bias",
        "layers.1.bias",
    ]
    assert len(parameters) == 6
    assert parameters.size == len(parameters.data) == len(parameters.gradient) == 2 * 9 + 4 * 3
    assert parameters.matrices == slice(0, 18)


def test_moving_into_the_buffer_changes_no_number(model):
    before = {name: tensor.data.copy() for name, tensor in model.named_parameters()}
    parameters = model.parameters()
    for name, array in before.items():
        np.testing.assert_array_equal(parameters[name].data, array)


def test_layers_see_what_is_written_into_the_buffer(model, parameters):
    parameters.data[:] = np.arange(parameters.size)
    np.testing.assert_array_equal(model.layers[1].weight.data, np.arange(9, 18).reshape(3, 3))
    np.testing.assert_array_equal(model.layers[1].bias.data, [27, 28, 29])
    assert model.tied.weight is parameters["layers.0.weight"]


def test_gradients_land_in_the_buffer_and_add_up_until_set_to_zero(model, parameters):
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    model(x).sum().backward()
    once = parameters.gradient.copy()
    for tensor in map(parameters.__getitem__, parameters):
        assert np.shares_memory(tensor.grad, parameters.gradient)
        assert np.any(tensor.grad != 0)
    model(x).sum().backward()
    np.testing.assert_allclose(parameters.gradient, 2 * once, rtol=1e-6)  # a tied weight adds up in another order
    parameters.zero_gradient()
    assert not parameters.gradient.any()
    assert not parameters["layers.0.weight"].grad.any()


def test_tied_weight_gets_the_gradient_of_both_its_uses(model, parameters):
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    untied = Pair()
    untied.tied.weight = Linear(3, 3, random=np.random.default_rng(0)).weight
    apart = untied.parameters()
    untied.tied.weight.data[...] = apart["layers.0.weight"].data
    for network in (model, untied):
        network(x).sum().backward()
    both = apart["layers.0.weight"].grad + apart["tied.weight"].grad
    np.testing.assert_allclose(parameters["layers.0.weight"].grad, both, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_buffer_and_views_have_the_dtype_asked_for(model, dtype):
    parameters = Parameters(dict(model.named_parameters()), dtype=dtype)
    assert {parameters.data.dtype, parameters.gradient.dtype, model.norm.gain.dtype} == {np.dtype(dtype)}


def test_a_new_gradient_replaces_the_old_one_of_every_weight_however_often_it_is_used(model, parameters):
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    for _ in range(2):
        model(x).sum().backward()
    expected = parameters.gradient.copy()
    parameters.gradient.fill(np.nan)
    outside, new = Tensor(x), NewGradient(parameters)
    for _ in range(2):
        model(outside).sum().backward(deliver=new.deliver)
    new.finish()
    np.testing.assert_allclose(parameters.gradient, expected, rtol=1e-6)
    assert outside.grad is not None


def test_a_weight_without_a_new_gradient_has_one_of_zeros(model, parameters):
    parameters.gradient.fill(np.nan)
    new = NewGradient(parameters)
    model.norm(Tensor(np.ones((2, 3), np.float32))).sum().backward(deliver=new.deliver)
    new.finish()
    for name in parameters:
        assert parameters[name].grad.any() == (name == "norm.bias")


def test_a_new_gradient_of_another_shape_is_refused(parameters):
    with pytest.raises(ShapeError, match=r"a leaf of shape \(3,\) received a gradient of shape \(1,\)"):
        NewGradient(parameters).deliver(parameters["norm.gain"], np.ones(1))


@pytest.mark.profile("ci")
def test_a_second_gradient_takes_what_a_sweep_delivers_and_the_first_stays(model, parameters):
    buffer = GradientBuffer(parameters)
    for _ in range(2):
        model(Tensor(np.ones((2, 3)))).sum().backward(deliver=buffer.add)
    assert not parameters.gradient.any()
    for _ in range(2):
        model(Tensor(np.ones((2, 3)))).sum().backward()
    np.testing.assert_array_equal(buffer.flat, parameters.gradient)
    assert buffer.flat.any()


def test_state_is_a_copy_and_load_brings_it_back(parameters):
    state, before = parameters.state(), parameters.data.copy()
    parameters.data[:] = 7
    assert all(np.all(array != 7) for array in state.values())
    parameters.load(state)
    np.testing.assert_array_equal(parameters.data, before)
    state["norm.gain"][:] = 9
    np.testing.assert_array_equal(parameters.data, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("norm.gain"),
            "weights do not match the model: missing norm.gain, unknown none",
        ),
        (
            lambda state: state.update(head=np.zeros(3)),
            "weights do not match the model: missing none, unknown head",
        ),
        (
            lambda state: state.update({"layers.1.bias": np.zeros(4)}),
            "weights do not match the model: layers.1.bias is (4,), expected (3,)",
        ),
        (
            lambda state: state.update({"layers.1.bias": np.zeros((1, 3))}),
            "weights do not match the model: layers.1.bias is (1, 3), expected (3,)",
        ),
    ],
)
def test_state_that_does_not_fit_is_refused_and_nothing_changes(parameters, change, message):
    before = parameters.data.copy()
    state = {name: array + 1 for name, array in parameters.state().items()}
    change(state)
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        parameters.load(state)
    np.testing.assert_array_equal(parameters.data, before)


def test_what_is_no_op_runs_the_kernel_of_the_parameters_compute_whatever_is_in_force(model):
    kernels = load_kernels("numpy")
    for name, expected in (("numpy", kernels[adamw_update]), ("reference", adamw_update)):
        parameters = Parameters(dict(model.named_parameters()), compute=Compute.choose("numpy", name))
        assert parameters.kernel_of(adamw_update) is expected
        with computing_with(Compute.choose("numpy", "numpy")):
            assert parameters.kernel_of(adamw_update) is expected
        with kernels_of("numpy"):  # but for a block of code one may insist
            assert parameters.kernel_of(adamw_update) is kernels[adamw_update]


@needs_compiler
def test_what_is_loaded_reaches_the_weights_that_are_computed_with():
    with open_place("host") as device:
        compute = Compute.choose(device, dtype="bfloat16")
        parameters = Parameters({"weight": Tensor(np.ones((2, 3), np.float32))}, compute=compute)
        parameters.load({"weight": np.full((2, 3), 2, np.float32)})
        np.testing.assert_array_equal(device.to_host(parameters["weight"].data).astype(np.float32), 2)
