"""What ops do at a kink, a tie, a bound or a single element: as PyTorch does, or with an error that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import Tensor, ops
from tinygrad_chat.errors import ConfigError, ShapeError

CORNERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], list[Any]]] = {
    "abs at 0": (ops.abs, lambda x: x.abs(), [-1.0, 0.0, 2.0]),
    "clip at its bounds": (
        lambda x: x.clip(min=0.0, max=1.0),
        lambda x: x.clip(min=0.0, max=1.0),
        [-1.0, 0.0, 1.0, 2.0],
    ),
    "clip, bounds crossed": (lambda x: x.clip(min=1.0, max=0.0), lambda x: x.clip(min=1.0, max=0.0), [-1.0, 0.5, 2.0]),
    "min of equals": (lambda x: x.min(), lambda x: x.amin(), [1.0, 3.0, 1.0]),
    "max of equals": (lambda x: x.max(), lambda x: x.amax(), [3.0, 1.0, 3.0]),
    "min of equals by rows": (lambda x: x.min(axis=1), lambda x: x.amin(dim=1), [[1.0, 1.0], [2.0, 1.0]]),
    "var of equals": (lambda x: x.var(), lambda x: x.var(), [2.0, 2.0, 2.0]),
    "std of equals": (lambda x: x.std(), lambda x: x.std(), [2.0, 2.0, 2.0]),
    "std by default": (lambda x: x.std(), lambda x: x.std(), [2.0, 3.0, 7.0]),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_value_and_gradient_at_a_corner_are_pytorchs(corner):
    torch = pytest.importorskip("torch")
    function, torch_function, numbers = CORNERS[corner]
    ours, theirs = Tensor(np.array(numbers)), torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    out, expected = function(ours).sum(), torch_function(theirs).sum()
    out.backward()
    expected.backward()
    np.testing.assert_allclose(out.data, expected.detach().numpy())
    np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())


def test_where_gives_each_gradient_to_the_side_that_was_chosen_even_beside_a_nan():
    x, y = Tensor([1.0, np.nan, 3.0]), Tensor([np.nan, 5.0, np.nan])
    out = ops.where(np.array([True, False, True]), x, y)
    out.sum().backward()
    np.testing.assert_array_equal(out.data, [1, 5, 3])
    np.testing.assert_array_equal(x.grad, [1, 0, 1])
    np.testing.assert_array_equal(y.grad, [0, 1, 0])


@pytest.mark.parametrize("condition", [np.ones(2), np.array([1, 0]), Tensor([1.0, 0.0]), 1])
def test_where_refuses_a_condition_that_is_not_of_booleans(condition):
    with pytest.raises(TypeError, match=r"where: expected booleans as the condition, such as x > 0"):
        ops.where(condition, Tensor([1.0, 2.0]), 0.0)


def test_variance_of_one_element_is_refused_and_without_correction_zero():
    with pytest.raises(ShapeError, match=r"^var: expected at least 2 elements to reduce, received 1$"):
        Tensor([3.0]).var()
    assert Tensor([3.0]).var(correction=0).item() == 0


@pytest.mark.parametrize("op", [ops.stack, ops.concatenate])
def test_pieces_may_come_as_one_list_and_each_receives_its_gradient(op):
    a, b = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
    for out in (op([a, b]), op((a, b)), op(a, b)):
        np.testing.assert_array_equal(out.data.ravel(), [1, 2, 3, 4])
        out.backward(np.arange(4.0, dtype=np.float32).reshape(out.shape))
    np.testing.assert_array_equal(a.grad, [0, 3])
    np.testing.assert_array_equal(b.grad, [6, 9])


def test_pieces_are_joined_and_cut_along_the_first_axis_by_default():
    a, b = np.zeros((2, 3)), np.ones((1, 3))
    assert ops.concatenate(a, b).shape == (3, 3)
    assert ops.stack(a, a, a).shape == (3, 2, 3)
    assert [piece.shape for piece in ops.split(a, [1, 1])] == [(1, 3), (1, 3)]


@pytest.mark.parametrize("op", [ops.stack, ops.concatenate])
def test_no_pieces_are_refused(op):
    for call in (lambda: op(), lambda: op([])):
        with pytest.raises(ShapeError, match=rf"^{op.name}: expected at least one array, received none$"):
            call()


# Numbers and integers beside floats have no say in the precision.


@pytest.mark.parametrize("op", [ops.add, ops.subtract, ops.multiply, ops.divide, ops.power], ids=lambda op: op.name)
@pytest.mark.parametrize(
    "constant",
    [2.0, 2, np.float64(2), np.array(2.0), np.int64(2), np.array(2), np.array([2, 3]), [2.0, 3.0], [2, 3], True],
    ids=lambda constant: f"{type(constant).__name__}{np.shape(constant)}{np.asarray(constant).dtype}",
)
@pytest.mark.parametrize("shape", [(2,), ()], ids=str)
def test_float32_stays_float32_beside_any_number_and_any_integer(op, constant, shape):
    x = Tensor.ones(shape)
    for out in (op(x, constant), op(constant, x)):
        assert out.dtype == np.float32
        out.sum().backward()
    assert x.grad.dtype == np.float32
    chosen = ops.where(np.array([True, False]), x, constant)
    assert chosen.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_other_precisions_stay_what_they_are(dtype):
    pytest.importorskip("ml_dtypes")
    x = Tensor.ones(2, dtype=np.dtype(dtype))
    out = x * np.float64(2) + np.array(1.0) - np.int64(1)
    assert out.dtype == np.dtype(dtype)
    out.backward(np.ones(2))
    assert x.grad.dtype == np.dtype(dtype)


def test_arrays_of_float64_widen_float32_as_in_pytorch():
    assert (Tensor([1.0, 2.0]) + np.ones(2)).dtype == np.float64


# In both directions: precision follows the Tensor, and so does the type of a leaf's gradient.


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("wide", [np.float64(0.1), np.array(0.1), np.float32(0.1)], ids=lambda x: f"{type(x)}{x.dtype}")
def test_a_number_of_any_type_is_compared_in_the_tensors_precision(wide, dtype):
    x = Tensor(np.array([0.1], dtype))
    for same in (x == wide, wide == x, x <= wide, wide >= x, x == 0.1):
        assert same.tolist() == [True]
    for other in (x != wide, x < wide, wide > x):
        assert other.tolist() == [False]


def test_numbers_as_options_and_beside_where_leave_the_precision():
    x = Tensor(np.ones(2, np.float16))
    chosen = np.array([True, False])
    outs = [
        x.clip(min=np.float64(0), max=np.float64(2)),
        x.where(chosen, np.float64(3)),
        ops.where(chosen, np.float64(3), x),
        np.float64(2) ** x,
        np.array(2.0) / x,
    ]
    x *= np.float64(2)
    assert {out.dtype for out in [*outs, x]} == {np.dtype(np.float16)}


@pytest.mark.parametrize("op", [ops.add, ops.multiply, ops.divide, ops.power, ops.linear, ops.matmul, ops.where])
def test_the_gradient_of_a_leaf_has_its_type_beside_wider_arrays(op):
    x, wide = Tensor(np.ones((2, 2), np.float32)), np.ones((2, 2))
    out = op(np.eye(2, dtype=bool), x, wide) if op is ops.where else op(x, wide)
    assert out.dtype == np.float64
    out.sum().backward()
    assert x.grad.dtype == np.float32


# Options out of range say so.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": -0.5}, "dropout: rate: expected at least 0, received -0.5"),
        ({"rate": 1.5}, "dropout: rate: expected at most 1, received 1.5"),
        ({"rate": np.nan}, "dropout: rate: expected a finite number, received nan"),
        ({"seed": -1}, r"dropout: seed: expected 0 to 2\*\*64 - 1, received -1"),
        ({"seed": 2**64}, r"dropout: seed: expected 0 to 2\*\*64 - 1, received 18446744073709551616"),
        ({"offset": -1}, "dropout: offset: expected at least 0, received -1"),
    ],
)
def test_dropout_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        ops.dropout(Tensor([1.0]), **{"rate": 0.5, "seed": 1, **options})


@pytest.mark.parametrize("seed", [0, np.int64(3), 2**64 - 1])
def test_dropout_at_a_rate_of_one_leaves_nothing(seed):
    x = Tensor([1.0, -2.0])
    out = ops.dropout(x, rate=1.0, seed=seed)
    out.sum().backward()
    np.testing.assert_array_equal([out.data, x.grad], 0)


def test_attention_and_the_loss_refuse_options_that_make_none():
    x = np.ones((1, 2, 4), np.float32)
    with pytest.raises(ShapeError, match="attention: expected at least 1 head, received 0"):
        ops.attention(x, x, x, heads=0)
    with pytest.raises(ConfigError, match="cross_entropy: soft_cap: expected more than 0, received 0"):
        ops.cross_entropy(Tensor(x[0]), np.array([0, 1]), soft_cap=0)
