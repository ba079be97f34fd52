"""The embedding's gradient for tables of more rows than a one-hot product is made for."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of, reference_ops

SMALL = importlib.import_module("tinygrad_chat.kernels.numpy.embedding").SMALL_VOCABULARY


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.uint64, list])
@pytest.mark.parametrize("rows", [SMALL, SMALL + 88])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_gradients_of_a_large_table_are_those_of_the_reference(kernel_set, rows, kind):
    random = np.random.default_rng(0)
    tokens, d_out = random.integers(0, 40, (5, 30)), random.normal(size=(5, 30, 3))
    tokens[0] += 200
    given = tokens.tolist() if kind is list else tokens.astype(kind)
    gradients = []
    for context in (kernels_of(kernel_set), reference_ops()):
        table = Tensor(random.normal(size=(rows, 3)))
        with context:
            ops.embedding(table, given).backward(d_out)
        gradients.append(table.grad)
    np.testing.assert_allclose(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [SMALL, SMALL + 88])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_a_token_counted_from_the_end_and_the_same_from_the_beginning_are_one(kernel_set, rows):
    table, tokens = Tensor(np.zeros((rows, 2))), np.array([-1, 3, rows - 1, -rows, -1])
    with kernels_of(kernel_set):
        ops.embedding(table, tokens).backward(np.ones((5, 2)))
    expected = np.zeros((rows, 2))
    expected[[0, 3, rows - 1]] = [[1], [1], [3]]
    np.testing.assert_array_equal(table.grad, expected)
