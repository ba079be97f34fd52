"""Every op at every size, 0 and 1 too, of each of its axes: what the reference gives, or refuses, every kernel does."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tinygrad_chat.kernels.numpy
from tests.catalogue import CATALOGUE, Case
from tests.test_catalogue import KERNEL_SETS, KERNEL_TOLERANCE, value_and_gradients
from tinygrad_chat.autograd import kernels_of, reference_ops
from tinygrad_chat.backend import Compute
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.models.gpt import GPT

random = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return (1.5 + random.random(shape)).astype(np.float32)


def one(A: int, B: int) -> Case:
    return Case((drawn(A, B),))


def two(A: int, B: int) -> Case:
    return Case((drawn(A, B), drawn(B)))


def outer(A: int, B: int) -> Case:
    return Case((drawn(A, 1), drawn(1, B)))


def along(**options: Any) -> Callable[..., Case]:
    return lambda A, B: Case((drawn(A, B),), options)


def reduced(**options: Any) -> tuple[Callable[..., Case], ...]:
    return tuple(along(axis=axis, keepdims=False, **options) for axis in (None, 0, 1))


def attention(B: int, T: int, S: int, G: int, shared: int, D: int) -> list[Case]:
    inputs = drawn(B, T, G * shared * D), drawn(B, S, G * D), drawn(B, S, G * D)
    starts = np.full((B, T), max(0, S - T))
    return [
        Case(inputs, {"heads": G * shared, "causal": causal, "window": window, "document_starts": document_starts})
        for causal, window, document_starts in (
            (True, None, None),
            (False, None, None),
            (True, 1, None),
            (True, 2, starts),
        )
    ]


def rotary(B: int, T: int, H: int, half: int) -> list[Case]:
    angles = {"cosine": drawn(T, half), "sine": drawn(T, half)}
    x, gain = drawn(B, T, 2 * H * half), drawn(2 * half)
    return [Case(inputs, {**angles, "rms": rms}) for inputs in ((x,), (x, gain)) for rms in (None, 1.0)]


def norm(vectors: int, added: bool = False) -> Callable[..., Case]:
    def case(A: int, B: int, C: int) -> Case:
        x = [drawn(A, B, C) * np.linspace(-1, 1, C, dtype=np.float32) for _ in range(1 + added)]
        return Case((*x, *(drawn(C) for _ in range(vectors))), {"epsilon": 1e-5})

    return case


# op: how to make its inputs, or several of them, from sizes
SIZED: dict[str, Sequence[Callable[..., Any]]] = {
    **dict.fromkeys(
        ["abs", "exp", "gelu", "log", "negative", "relu", "sigmoid", "sqrt", "squared_relu", "tanh"], (one,)
    ),
    **dict.fromkeys(["add", "subtract", "multiply", "divide", "power"], (two, outer)),
    **dict.fromkeys(["sum", "mean", "max", "min"], reduced()),
    **dict.fromkeys(["var", "std"], reduced(correction=1) + reduced(correction=0)),
    **dict.fromkeys(["softmax", "log_softmax"], (along(axis=0), along(axis=1))),
    "swiglu": [lambda A, B: Case((drawn(A, B), drawn(A, B)))],
    "where": [lambda A, B: Case((np.arange(B) % 2 == 0, drawn(A, 1), drawn(B)))],
    "clip": [along(min=1.7, max=2.0)],
    "reshape": [lambda A, B: Case((drawn(A, B),), {"shape": (B, 1, A)})],
    "transpose": [along(axes=(1, 0))],
    "index": [along(key=(slice(None, None, 2), slice(0, 1))), along(key=np.zeros((0, 2), np.int64))],
    "split": [lambda A, B: Case((drawn(A + B, 2),), {"sizes": [A, B], "axis": 0})],
    "concatenate": [lambda A, B, C: Case((drawn(A, C), drawn(B, C)), {"axis": 0})],
    "stack": [lambda A, B: Case((drawn(A, B), drawn(A, B)), {"axis": 1})],
    "matmul": [lambda A, N, K, M: Case((drawn(A, N, K), drawn(K, M)))],
    "linear": [
        lambda A, B, C, D: Case((drawn(A, B, C), drawn(D, C), drawn(D))),
        lambda C, D: Case((drawn(C), drawn(D, C))),
    ],
    "linears": [
        lambda A, C, D, E: Case((drawn(A, C), drawn(D, C), drawn(E, C))),
        lambda A, C, D: Case((drawn(A, C), drawn(D, C), drawn(2, C), drawn(D), drawn(2))),
    ],
    "embedding": [lambda V, C, A, B: Case((drawn(V, C), np.zeros((A, B), np.int64)))],
    "layernorm": [norm(1), norm(2)],
    "rmsnorm": [norm(0), norm(1)],
    "add_layernorm": [norm(1, added=True), norm(2, added=True)],
    "add_rmsnorm": [norm(0, added=True), norm(1, added=True)],
    "attention": [attention],
    "rotary": [rotary],
    "scaled_sum": [
        lambda A, C, L: Case((drawn(A, C), drawn(A, C), drawn(L), drawn(L)), {"layer": 0, "subtract": True})
    ],
    "gated_sum": [lambda A, G, D: Case((drawn(A, G * D), drawn(A, G * D), drawn(A, G)), {"reach": 2.0})],
    "smear": [
        lambda B, T, C, K: Case((drawn(B, T, C), drawn(1, K), drawn(1)), {"before": None}),
        lambda B, T, C: Case((drawn(B, T, C), drawn(1, min(C, 1)), drawn(1)), {"before": drawn(B, 1, C)}),
    ],
    "cross_entropy": [
        lambda A, B, V: Case((drawn(A, B, V), np.zeros((A, B), np.int64))),
        lambda A, V: Case((drawn(A, V), np.full(A, -1)), {"soft_cap": 2.0, "token_count": 3}),
    ],
    "dropout": [lambda A, B: Case((drawn(A, B),), {"rate": 0.5, "seed": 1})],
}


def cases_of(name: str) -> list[Case]:
    cases = []
    for make in SIZED[name]:
        for sizes in itertools.product((0, 1, 3), repeat=len(inspect.signature(make).parameters)):
            made = make(*sizes)
            cases += made if isinstance(made, list) else [made]
    return cases


def outcome(name: str, case: Case) -> list[np.ndarray] | None:
    """Value and gradients, or None where the op refuses the sizes in one line."""
    try:
        out = CATALOGUE[name].function(*case.inputs, **case.options)
        return value_and_gradients(CATALOGUE[name], case, np.ones(np.shape(out), np.float32))
    except ShapeError:
        return None


class Unwritten:
    """NumPy, but memory that nobody has written to is full of NaNs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        return np.full(shape, np.nan, dtype)

    def empty_like(self, array: np.ndarray) -> np.ndarray:
        return np.full_like(array, np.nan)


@pytest.fixture
def nans_in_empty_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    package = tinygrad_chat.kernels.numpy
    for module in pkgutil.iter_modules(package.__path__):
        monkeypatch.setattr(
            importlib.import_module(f"{package.__name__}.{module.name}"), "np", Unwritten(), raising=False
        )


@pytest.mark.parametrize("kernels", ["reference", *KERNEL_SETS])
def test_a_model_of_an_empty_batch_has_logits_a_loss_and_a_gradient(kernels: str):
    model = GPT(
        5,
        TrainingConfig.of(model="nanochat", depth=1, width=8, heads=2).model,
        compute=Compute.choose("numpy", kernels),
    )
    tokens = np.zeros((0, 3), np.int64)
    assert model.logits(tokens).shape == (0, 3, 5)
    model.parameters()
    loss = model.loss(tokens, tokens)
    loss.backward()
    assert loss.item() == 0
    assert not model.parameters().gradient.any()


def test_every_op_is_here():
    assert SIZED.keys() == CATALOGUE.keys()


@pytest.mark.profile("ci")
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.usefixtures("nans_in_empty_memory")
def test_every_kernel_does_at_every_size_what_the_reference_does(name: str, kernel_set: str):
    for case in cases_of(name):
        with reference_ops():
            expected = outcome(name, case)
        with kernels_of(kernel_set):
            found = outcome(name, case)
        shapes = [np.shape(x) for x in case.inputs], case.options
        assert (found is None) == (expected is None), shapes
        for mine, reference in zip(found or [], expected or [], strict=True):
            assert mine.shape == reference.shape, shapes
            np.testing.assert_allclose(
                mine, reference, rtol=KERNEL_TOLERANCE, atol=KERNEL_TOLERANCE, err_msg=str(shapes)
            )


@pytest.mark.profile("ci")
@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")  # PyTorch's, of no elements at all
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_reference_does_at_every_size_what_pytorch_does_or_refuses_it(name: str):
    torch = pytest.importorskip("torch")
    for case in cases_of(name):
        with reference_ops():
            ours = outcome(name, case)
        if ours is None or (name == "cross_entropy" and case.inputs[1].size == 0):  # the mean over no token: ours is 0
            continue
        tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in case.inputs]
        out = CATALOGUE[name].torch(*tensors, **case.options)
        out.backward(torch.ones_like(out))
        theirs = [out.detach(), *(t.grad for t in tensors if t.requires_grad)]
        shapes = [np.shape(x) for x in case.inputs], case.options
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.shape == tuple(other.shape), shapes
            np.testing.assert_allclose(mine, other.numpy(), rtol=1e-3, atol=1e-3, err_msg=str(shapes))
