"""What type checkers see. `assert_type` does nothing when it runs: pyright, which checks the tests too, holds them."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import pytest

from tinygrad_chat import Tensor, differentiable, ops

x, weight = Tensor.zeros(2, 3), Tensor.randn(3, 3, seed=0)
array = np.zeros((3, 3), np.float32)


@differentiable
def scaled(x: Any, *, factor: float = 1.0):
    """factor * x."""
    return factor * x, lambda d_out: (factor * d_out,)


def test_op_returns_a_tensor_for_tensors_and_an_array_for_arrays():
    assert_type(ops.linear(x, weight), Tensor)
    assert_type(ops.linear(x, weight, bias=array[0]), Tensor)
    assert_type(ops.linear(array, weight), Tensor)
    assert_type(ops.where(array > 0, 0.0, weight), Tensor)
    assert_type(ops.stack([x, x], axis=1), Tensor)
    assert_type(ops.linear(array, array), np.ndarray)
    assert_type(ops.concatenate(array, array), np.ndarray)
    assert_type(scaled(x, factor=2.0), Tensor)
    assert_type(scaled(array), np.ndarray)


def test_operators_and_methods_return_a_tensor():
    assert_type(2 * x + array[:2], Tensor)
    assert_type(array @ weight, Tensor)
    assert_type(sum([x, x], x), Tensor)
    assert_type(abs(-x).exp().gelu().clip(min=0.0), Tensor)
    assert_type(x.sum(0).softmax(), Tensor)
    assert_type(x[0].reshape((3, 1)).T, Tensor)
    assert_type(x > 0, np.ndarray)


def test_wrong_arguments_are_errors_before_they_are_at_run_time():
    with pytest.raises(TypeError):
        ops.softmax(x, axes=0)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        ops.linear(x)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        x.exp(1)  # pyright: ignore[reportCallIssue]
