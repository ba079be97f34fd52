"""Products with quantised weights: each kernel against the reference, for every shape; whole numbers to the bit."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.backend import load_kernels
from tinygrad_chat.nn import QuantizedWeight
from tinygrad_chat.nn.quantized import quantized_product

KINDS = ("float16", "int8")
KERNELS = [name for name in ("numpy", "numba") if name == "numpy" or find_spec(name)]
compiled = pytest.mark.skipif("numba" not in KERNELS, reason="needs Numba")
sizes = st.one_of(st.integers(1, 9), st.integers(10, 140))


def draw(rows, columns, lines, kind, seed=0):
    random = np.random.default_rng(seed)
    spread = np.exp(random.normal(size=(lines, 1)))
    weight = QuantizedWeight.of((random.normal(size=(lines, columns)) * spread).astype(np.float32), kind)
    return random.normal(size=(rows, columns)).astype(np.float32), weight


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
@given(sizes, sizes, sizes, st.integers(0, 9))
def test_it_is_the_reference_within_what_rounding_x_may_change(kernels, kind, rows, columns, lines, seed):
    x, weight = draw(rows, columns, lines, kind, seed)
    found = load_kernels(kernels)[quantized_product](x, weight)
    expected = quantized_product(x.astype(np.float64), weight)
    matrix = np.abs(weight.rows(slice(lines)))
    allowed = 4e-6 * (np.abs(x) @ matrix.T)  # of float32
    if kernels == "numba" and kind == "int8":
        from tinygrad_chat.kernels.numba.quantized_product import steps_of

        half_a_step = np.abs(x).max(axis=1, keepdims=True) / steps_of(weight.numbers.shape[1]) / 2
        allowed = allowed + half_a_step * matrix.sum(axis=1)
    assert found.dtype == np.float32
    assert (np.abs(found - expected) <= allowed).all()


@pytest.mark.profile("ci")
@compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 63])
def test_a_row_gives_the_same_alone_and_among_others_and_in_any_number_of_threads(kind, rows, monkeypatch):
    products = import_module("tinygrad_chat.kernels.numba.products")
    multiply = load_kernels("numba")[quantized_product]
    monkeypatch.setattr(products, "WORTH_THREADS", 1)
    x, weight = draw(rows, 45, 30, kind)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(products, "product_threads", lambda threads=threads: threads)
        found += [multiply(x, weight), [multiply(x[row], weight) for row in range(rows)]]
    for each in found:
        np.testing.assert_array_equal(each, found[0])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("lines", [1, 4, 29, 31])
def test_many_rows_are_multiplied_by_some_lines_of_float16_at_a_time(kernels, lines, monkeypatch):
    x, weight = draw(70, 45, lines, "float16")
    module = import_module(f"tinygrad_chat.kernels.{kernels}.quantized_product")
    monkeypatch.setattr(module, "SLICE", 10 * weight.numbers.shape[1])
    found = load_kernels(kernels)[quantized_product](x, weight)
    np.testing.assert_allclose(found, quantized_product(x, weight), rtol=1e-5, atol=1e-5)


@compiled
def test_whole_numbers_are_added_up_exactly():
    """Also the largest ones that x and the weight may have, in as many columns as a sum of 32 bits just holds."""
    from tinygrad_chat.kernels.numba.quantized_product import steps_of

    for columns in (32, 576, 1536, 8192):
        steps = steps_of(columns)
        weight = QuantizedWeight.of(np.full((5, columns), 127, np.float32), "int8")
        x = np.full((5, columns), steps, np.float32)
        found = load_kernels("numba")[quantized_product](x, weight)
        np.testing.assert_array_equal(found, np.full((5, 5), np.float32(127 * steps * columns)))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_stays_in_its_row(kernels, kind):
    x, weight = draw(6, 40, 8, kind)
    x[1, 3], x[2, 0] = np.nan, np.inf
    with np.errstate(all="ignore"):
        found = load_kernels(kernels)[quantized_product](x, weight)
    assert not np.isfinite(found[1:3]).any()
    assert np.isfinite(np.delete(found, [1, 2], axis=0)).all()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_leading_axes_stay_and_no_rows_are_none(kernels, kind):
    multiply = load_kernels(kernels)[quantized_product]
    x, weight = draw(6, 40, 7, kind)
    np.testing.assert_array_equal(multiply(x.reshape(2, 3, 40), weight), multiply(x, weight).reshape(2, 3, 7))
    assert multiply(x[:0], weight).shape == (0, 7)
    strided = np.repeat(x, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(multiply(strided, weight), multiply(x, weight))
