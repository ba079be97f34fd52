"""The linear kernel, with few rows and a large weight too."""

from __future__ import annotations

import importlib
import tracemalloc
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import reference_ops
from tinygrad_chat.backend import load_kernels

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


compiled = pytest.mark.skipif(not find_spec("numba"), reason="needs Numba")


def drawn(rows, columns, lines, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=(count, columns)).astype(np.float32) for count in (rows, lines)]


def compiled_linear(*inputs):
    return load_kernels("numba")[ops.linear](*inputs)[0]


@pytest.mark.profile("ci")
@compiled
@pytest.mark.parametrize("rows", [1, 8])
def test_weights_in_a_mapped_file_are_not_copied(rows):
    x, weight = drawn(rows, 1024, 1024)
    weight.flags.writeable = False
    expected = compiled_linear(x, weight)
    tracemalloc.start()
    found = compiled_linear(x, weight)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < weight.nbytes / 10
    np.testing.assert_array_equal(found, expected)


@compiled
@given(st.integers(1, 9), st.integers(1, 4), st.integers(4, 40), st.integers(0, 9))
def test_a_compiled_product_of_few_rows_is_the_product(rows, steps, lines, seed):
    products = importlib.import_module("tinygrad_chat.kernels.numba.products")
    x, weight = drawn(rows, 32 * steps, lines, seed)
    expected = x.astype(np.float64) @ weight.T
    allowed = 1e-6 * (np.abs(x) @ np.abs(weight).T)
    assert (np.abs(products.product(x, weight) - expected) <= allowed).all()


@pytest.mark.profile("ci")
@compiled
@pytest.mark.parametrize("lines", [300, 301, 302, 303])
def test_a_row_gives_the_same_alone_and_among_others_and_in_any_number_of_threads(lines, monkeypatch):
    products = importlib.import_module("tinygrad_chat.kernels.numba.products")
    monkeypatch.setattr(products, "WORTH_THREADS", 1)
    x, weight = drawn(7, 224, lines)
    assert weight.size > kernel.LARGE
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(products, "product_threads", lambda threads=threads: threads)
        found += [compiled_linear(x, weight), [compiled_linear(row, weight) for row in x]]
    for each in found:
        np.testing.assert_array_equal(each, found[0])


@compiled
@pytest.mark.parametrize(
    ("rows", "columns", "lines", "dtype"), [(3, 225, 300, "f4"), (3, 32768, 3, "f4"), (3, 224, 300, "f8")]
)
def test_what_no_compiled_product_is_for_is_left_to_blas(rows, columns, lines, dtype):
    x, weight = (each.astype(dtype) for each in drawn(rows, columns, lines))
    np.testing.assert_allclose(compiled_linear(x, weight), x @ weight.T, rtol=1e-3, atol=1e-3)


@compiled
def test_rows_and_weights_may_lie_in_any_order():
    x, weight = drawn(4, 224, 300)
    expected = compiled_linear(x, weight)
    np.testing.assert_array_equal(compiled_linear(np.asfortranarray(x), weight), expected)
    np.testing.assert_array_equal(compiled_linear(x, np.asfortranarray(weight)), expected)
    np.testing.assert_array_equal(
        compiled_linear(np.repeat(x, 2, axis=1)[:, ::2], np.repeat(weight, 2, 0)[::2]), expected
    )
