"""Quantised weights: how far they are from what was given, and what a model made of them computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tinygrad_chat import GPT, Compute
from tinygrad_chat.autograd import no_grad
from tinygrad_chat.errors import ShapeError, UsageError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.weights import draw_weights, quantized_weights
from tinygrad_chat.nn import QuantizedWeight
from tinygrad_chat.nn.quantized import quantized_product

KINDS = ("float16", "int8")
OPTIONS = ModelOptions(layers=2, heads=4, key_value_heads=2, width=16, context=12, bias=True, vocabulary_multiple=8)
random = np.random.default_rng(0)


def in_float32(weight):
    return weight.rows(slice(len(weight))) if isinstance(weight, QuantizedWeight) else weight


def models(kind, options=OPTIONS, vocabulary=13, kernels="numpy"):
    """A model with quantised weights, and one of the same numbers in float32."""
    quantized = quantized_weights(options, vocabulary, draw_weights(options, vocabulary), kind)
    same = {name: in_float32(weight) for name, weight in quantized.items()}
    compute = Compute.choose("numpy", kernels)
    return [GPT(vocabulary, options, compute=compute, weights=each) for each in (quantized, same)]


@pytest.mark.parametrize("shape", [(1, 1), (4, 32), (5, 33), (300, 7), (3, 0)])
def test_each_number_is_the_nearest_that_the_type_has(shape):
    matrix = random.normal(size=shape).astype(np.float32) * np.logspace(-3, 3, shape[0], dtype=np.float32)[:, None]
    halves, bytes_ = (QuantizedWeight.of(matrix, kind).rows(slice(shape[0])) for kind in KINDS)
    np.testing.assert_array_equal(halves, matrix.astype(np.float16).astype(np.float32))
    half_a_step = np.abs(matrix).max(axis=1, initial=0, keepdims=True) / 127 / 2
    assert (np.abs(bytes_ - matrix) <= half_a_step * 1.0001).all()


def test_a_row_of_zeros_stays_one():
    weight = QuantizedWeight.of(np.zeros((2, 3), np.float32), "int8")
    np.testing.assert_array_equal(weight.rows(np.array([[1, 0]])), np.zeros((1, 2, 3)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_shows(kind, number):
    matrix = np.ones((3, 4), np.float32)
    matrix[1, 2] = number
    with np.errstate(invalid="ignore"):
        out = quantized_product(np.ones((1, 4), np.float32), QuantizedWeight.of(matrix, kind))
    assert np.isfinite(out).tolist() == [[True, False, True]]


def test_they_take_half_and_a_quarter_of_the_memory():
    matrix = np.zeros((64, 128), np.float32)
    sizes = [QuantizedWeight.of(matrix, kind).nbytes for kind in KINDS]
    assert sizes == [matrix.nbytes // 2 + 64 * 4, matrix.nbytes // 4 + 64 * 4]


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_rows_of_a_matrix_are_a_matrix(kind):
    weight = QuantizedWeight.of(random.normal(size=(6, 5)).astype(np.float32), kind)
    x = random.normal(size=(2, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(quantized_product(x, weight[:4]), quantized_product(x, weight)[..., :4])


def test_rows_of_another_length_are_refused():
    with pytest.raises(ShapeError, match=r"weight has shape \(6, 5\) but rows of x have 4 features"):
        quantized_product(np.ones((2, 4), np.float32), QuantizedWeight.of(np.ones((6, 5), np.float32), "int8"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": False, "value_embeddings": True, "positions": "rotary"},
        {"vocabulary_multiple": 1, "activation": "swiglu", "heads": 3, "head_width": 2, "key_value_heads": 1},
    ],
    ids=["tied", "untied", "widths that kernels fill up"],
)
def test_a_model_computes_what_its_numbers_in_float32_give(kind, changes):
    quantized, same = models(kind, dataclasses.replace(OPTIONS, **changes))
    tokens = random.integers(13, size=(2, 9))
    np.testing.assert_allclose(quantized.token_logits(tokens), same.token_logits(tokens), rtol=2e-5, atol=2e-6)
    cache = quantized.new_cache(2)
    quantized.next_token_logits(tokens[:, :8], cache)
    expected = same.next_token_logits(tokens)
    np.testing.assert_allclose(quantized.next_token_logits(tokens[:, 8:], cache), expected, rtol=2e-5, atol=2e-6)


def test_a_gradient_is_refused():
    quantized, _ = models("int8")
    with pytest.raises(UsageError, match="have no gradient"):
        quantized.loss(np.array([[1, 2]]), np.array([[2, 3]]))
    with no_grad():
        assert quantized.loss(np.array([[1, 2]]), np.array([[2, 3]])).item() > 0
