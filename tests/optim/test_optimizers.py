"""AdamW, SGD and clipping against PyTorch's, and what they remember."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, DeviceArray, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tinygrad_chat.errors import CheckpointError, ConfigError
from tinygrad_chat.nn import LayerNorm, Linear, Module, Parameters
from tinygrad_chat.optim import SGD, AdamW, Group, Muon, Optimizer, clip_gradient
from tinygrad_chat.optim.state import overwrite
from tinygrad_chat.tensor import Tensor

STEPS = 20


class OnHost(np.ndarray):
    """An array that refuses one of a device, as NumPy's do CuPy's."""

    def __setitem__(self, key: Any, value: Any) -> None:
        assert not isinstance(value, DeviceArray)
        super().__setitem__(key, value)


class Parts(Module):
    """Two matrices, a bias and a gain: something to decay and something not to."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.first = Linear(5, 7, random=random)
        self.norm = LayerNorm(7, bias=False)
        self.second = Linear(7, 3, random=random, bias=False)


def gradients(size: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(STEPS, size))


def learning_rate(step: int) -> float:
    return 1e-2 * (1 + step % 3)


def train(parameters: Parameters, optimizer: Optimizer, steps: range) -> None:
    every = gradients(parameters.size)
    for step in steps:
        parameters.gradient[:] = every[step]
        optimizer.step(learning_rate(step))


def torch_result(build: Callable[..., Any]) -> np.ndarray:
    """The flat parameters after the same steps in PyTorch, one tensor for each of ours."""
    torch = pytest.importorskip("torch")
    parameters = Parameters(dict(Parts().named_parameters()), dtype=np.float64)
    tensors = [torch.tensor(np.array(parameters[name].data), requires_grad=True) for name in parameters]
    optimizer = build(torch, tensors)
    sizes = [tensor.numel() for tensor in tensors]
    for step, flat in enumerate(gradients(parameters.size)):
        for tensor, piece in zip(tensors, np.split(flat, np.cumsum(sizes)[:-1]), strict=True):
            tensor.grad = torch.tensor(piece.reshape(tensor.shape))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


@pytest.mark.profile("ci")
def test_adamw_agrees_with_pytorch_over_20_steps():
    def build(torch: Any, tensors: list[Any]) -> Any:
        groups = [
            {"params": [tensor for tensor in tensors if tensor.ndim >= 2], "weight_decay": 0.3},
            {"params": [tensor for tensor in tensors if tensor.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-6)

    parameters = Parameters(dict(Parts().named_parameters()), dtype=np.float64)
    train(parameters, AdamW(parameters, betas=(0.8, 0.95), epsilon=1e-6, weight_decay=0.3), range(STEPS))
    np.testing.assert_allclose(parameters.data, torch_result(build), rtol=1e-12, atol=1e-12)


@pytest.mark.profile("ci")
def test_sgd_agrees_with_pytorch_over_20_steps():
    def build(torch: Any, tensors: list[Any]) -> Any:
        return torch.optim.SGD(tensors, lr=0.1, momentum=0.9)

    parameters = Parameters(dict(Parts().named_parameters()), dtype=np.float64)
    train(parameters, SGD(parameters, momentum=0.9), range(STEPS))
    # PyTorch's velocity leaves the learning rate out, as ours does.
    np.testing.assert_allclose(parameters.data, torch_result(build), rtol=1e-12, atol=1e-12)


def test_decay_shrinks_matrices_and_leaves_gains_and_biases_alone():
    parameters = Parts().parameters()
    before = parameters.state()
    AdamW(parameters, weight_decay=0.5).step(0.1)  # no gradient: only the decay acts
    for name, old in before.items():
        expected = old * (1 - 0.1 * 0.5) if old.ndim >= 2 else old
        np.testing.assert_allclose(parameters[name].data, expected, rtol=1e-6)


@needs_compiler
def test_a_state_is_loaded_where_each_of_its_arrays_lies():
    with standing_in():
        averages = {"first": DEVICE.xp.zeros(3, np.float32), "steps": np.zeros(1, np.int64).view(OnHost)}
        overwrite(averages, {"first": np.arange(3.0), "steps": np.array([7])})
        assert DEVICE.to_host(averages["first"]).tolist() == [0, 1, 2]
    assert averages["steps"].tolist() == [7]


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_steps_after_loading_are_the_same_to_the_last_bit(kind):
    whole, stopped = Parts().parameters(), Parts().parameters()
    train(whole, kind(whole), range(STEPS))
    first = kind(stopped)
    train(stopped, first, range(7))
    second = kind(stopped)
    second.load(first.state())
    train(stopped, second, range(7, STEPS))
    np.testing.assert_array_equal(whole.data, stopped.data)


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_state_is_a_copy_and_an_unfit_one_changes_nothing(kind):
    parameters = Parts().parameters()
    optimizer = kind(parameters)
    train(parameters, optimizer, range(2))
    state = optimizer.state()
    train(parameters, optimizer, range(2, 3))
    later = optimizer.state()
    assert any(not np.array_equal(state[name], later[name]) for name in state)
    with pytest.raises(CheckpointError, match="optimiser state does not fit"):
        optimizer.load({name: array[:1] for name, array in state.items()} | {"steps": np.zeros(2)})
    with pytest.raises(CheckpointError, match="is none"):
        optimizer.load({})
    for name, array in optimizer.state().items():
        np.testing.assert_array_equal(array, later[name])


def test_clipping_scales_the_whole_gradient_to_the_limit_and_returns_its_norm():
    parameters = Parameters(dict(Parts().named_parameters()), dtype=np.float64)
    gradient = gradients(parameters.size)[0]
    parameters.gradient[:] = gradient
    norm = clip_gradient(parameters, 0.25)
    assert norm == pytest.approx(np.linalg.norm(gradient))
    np.testing.assert_allclose(parameters.gradient, gradient * 0.25 / norm)


@pytest.mark.parametrize("limit", [1e6, None])
def test_clipping_leaves_a_shorter_gradient_alone(limit):
    parameters = Parts().parameters()
    parameters.gradient[:] = gradients(parameters.size)[0]
    before = parameters.gradient.copy()
    clip_gradient(parameters, limit)
    np.testing.assert_array_equal(parameters.gradient, before)


@pytest.mark.parametrize("size", [1e-30, 1e15, 1e20])
def test_adamw_takes_pytorchs_steps_for_tiny_and_huge_gradients(size):
    torch = pytest.importorskip("torch")
    parameters = Parameters({"x": Tensor(np.ones(2, np.float32))})
    theirs = torch.ones(2, requires_grad=True)
    ours, adamw = AdamW(parameters), torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    for share in (1.0, 1.0, 0.1, 0.0):
        parameters.gradient[:] = share * size
        theirs.grad = torch.full((2,), share * size)
        ours.step(0.1)
        adamw.step()
        np.testing.assert_allclose(parameters.data, theirs.detach().numpy(), rtol=1e-5)


PARAMETERS = Parameters({"x": Tensor([1.0])})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(PARAMETERS, betas=(1.0, 0.9)), "AdamW: beta 1: expected less than 1, received 1.0"),
        (lambda: AdamW(PARAMETERS, betas=(0.9, -0.1)), "AdamW: beta 2: expected at least 0, received -0.1"),
        (lambda: AdamW(PARAMETERS, epsilon=-1.0), "AdamW: epsilon: expected at least 0, received -1.0"),
        (
            lambda: AdamW(PARAMETERS, weight_decay=math.nan),
            "AdamW: weight_decay: expected a finite number, received nan",
        ),
        (lambda: SGD(PARAMETERS, momentum=1.5), "SGD: momentum: expected less than 1, received 1.5"),
        (lambda: clip_gradient(PARAMETERS, 0), "clip_gradient: limit: expected more than 0, received 0"),
        (lambda: clip_gradient(PARAMETERS, math.nan), "clip_gradient: limit: expected a finite number, received nan"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        AdamW,
        SGD,
        lambda parameters: Muon(
            parameters,
            [Group("vectors", ("first.bias", "norm.gain"), 1.0, (0.8, 0.95), 0.0)],
            momentum=lambda position: 0.95,
            weight_decay=lambda position: 0.0,
        ),
    ],
    ids=["adamw", "sgd", "muon"],
)
def test_an_average_of_gradients_that_are_over_ends_at_zero(make: Callable[[Parameters], Optimizer]):
    """Else it becomes a subnormal number for good, and a processor takes a hundred times as long for it."""
    parameters = Parameters(dict(Parts().named_parameters()))
    optimizer = make(parameters)
    parameters.gradient[:] = 1e-13
    optimizer.step(1e-3)
    assert any(np.any(array > 0) for name, array in optimizer.state().items() if name != "steps")
    parameters.gradient[:] = 0
    for _ in range(1000):
        optimizer.step(1e-3)
    assert [name for name, array in optimizer.state().items() if name != "steps" and np.any(array)] == []
