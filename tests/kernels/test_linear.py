"""The linear kernel, with few rows and a large weight too."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import reference_ops

kernel = importlib.import_module("tinygrad_chat.kernels.numpy.linear")  # the module, not the function in it


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lead", [(), (1,), (8,), (2, 3), (kernel.FEW,), (kernel.FEW + 1,)])
def test_few_rows_and_a_large_weight_give_what_the_reference_gives(lead, bias):
    D, C = 300, kernel.LARGE // 300 + 1
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(*lead, C)), random.normal(size=(D, C)), *([random.normal(size=D)] if bias else [])]

    def results():
        nodes = [Tensor(x) for x in inputs]
        out = ops.linear(*nodes)
        out.sum().backward()
        return [out.data, *(node.grad for node in nodes)]

    found = results()
    with reference_ops():
        expected = results()
    assert found[0].flags.c_contiguous
    for array, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, reference, rtol=1e-9, atol=1e-9)
