"""Large arrays divided among threads: each op gives the same bits in any number of them."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of

pytest.importorskip("numba")

from tinygrad_chat.kernels.numba import threads as dividing

adamw = importlib.import_module("tinygrad_chat.kernels.numba.adamw")  # `numba.adamw` is the optimiser's module
X, Y, VECTOR = np.random.default_rng(0).normal(size=(3, 7, 5, 37)).astype(np.float32)
OPS = {
    "gelu": lambda x: ops.gelu(x),
    "squared_relu": lambda x: ops.squared_relu(x),
    "swiglu": lambda x: ops.swiglu(x, Y),
    "layernorm": lambda x: ops.layernorm(x, VECTOR[0, 0], VECTOR[0, 1]),
    "rmsnorm": lambda x: ops.rmsnorm(x),
    "softmax": lambda x: ops.softmax(x, axis=1),
    "log_softmax": lambda x: ops.log_softmax(x),
}


@pytest.mark.parametrize("name", OPS)
def test_any_number_of_threads_gives_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dividing, "WORTH_THREADS", 1)
    found = []
    for threads in (1, 2, 3, 50):
        monkeypatch.setattr(dividing, "product_threads", lambda threads=threads: threads)
        with kernels_of("numba"):
            x = Tensor(X)
            out = OPS[name](x)
            out.backward(Y)
        found.append((out.data, x.grad))
    for other in found[1:]:
        for mine, alone in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(mine, alone)


def test_few_elements_are_not_worth_a_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dividing, "product_threads", lambda: 2)
    monkeypatch.setattr(dividing.threading, "Thread", None)
    dividing.divided(lambda x: np.negative(x, out=x), x := np.ones(dividing.WORTH_THREADS - 1))
    assert (x == -1).all()


@pytest.mark.parametrize("decayed", [0, 3, 50, 101])
def test_each_thread_updates_a_part_of_the_weights(decayed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dividing, "WORTH_THREADS", 1)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(dividing, "product_threads", lambda threads=threads: threads)
        arrays = np.random.default_rng(0).uniform(size=(4, 101)).astype(np.float32)
        adamw.adamw_update(*arrays, (0.9, 0.01, 0.2, 0.05, 3.0, 1e-6), decayed=decayed)
        found.append(arrays)
    np.testing.assert_array_equal(found[1:], found[:1] * 2)
