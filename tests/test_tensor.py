"""Tensor: operators bound to ops, gradients that nobody shares, and memory that falls as the sweep passes."""

from __future__ import annotations

import operator
import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import Tensor, Value
from tinygrad_chat.autograd import differentiable
from tinygrad_chat.errors import ShapeError

random = np.random.default_rng(0)
x, y, matrix = (random.uniform(0.5, 2, size=(3, 3)) for _ in range(3))
d_out = random.normal(size=(3, 3))


# sign: (operator, gradient of x, gradient of y)
BINARY: dict[str, tuple[Callable[[Any, Any], Any], np.ndarray, np.ndarray]] = {
    "+": (lambda x, y: x + y, d_out, d_out),
    "-": (lambda x, y: x - y, d_out, -d_out),
    "*": (lambda x, y: x * y, d_out * y, d_out * x),
    "/": (lambda x, y: x / y, d_out / y, -d_out * x / y**2),
    "**": (lambda x, y: x**y, d_out * y * x ** (y - 1), d_out * x**y * np.log(x)),
    "@": (lambda x, y: x @ y, d_out @ y.T, x.T @ d_out),
}
# name: (method, its value, gradient of x)
UNARY: dict[str, tuple[Callable[[Any], Any], np.ndarray, np.ndarray]] = {
    "-": (lambda x: -x, -x, -d_out),
    "exp": (lambda x: x.exp(), np.exp(x), d_out * np.exp(x)),
    "log": (lambda x: x.log(), np.log(x), d_out / x),
    "sqrt": (lambda x: x.sqrt(), np.sqrt(x), d_out / (2 * np.sqrt(x))),
    "tanh": (lambda x: x.tanh(), np.tanh(x), d_out / np.cosh(x) ** 2),
    "sigmoid": (lambda x: x.sigmoid(), 1 / (1 + np.exp(-x)), d_out * np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "abs": (lambda x: (x - 1).abs(), np.abs(x - 1), d_out * np.sign(x - 1)),
    "abs()": (lambda x: abs(x - 1), np.abs(x - 1), d_out * np.sign(x - 1)),
    "clip": (lambda x: x.clip(max=1.0), np.minimum(x, 1), d_out * (x <= 1)),
    "where": (lambda x: x.where(x > 1, 0.0), np.where(x > 1, x, 0), d_out * (x > 1)),
    "relu": (lambda x: (x - 1).relu(), np.maximum(x - 1, 0), d_out * (x > 1)),
    "T": (lambda x: x.T, x.T, d_out.T),
    "transpose": (lambda x: x.transpose(1, 0), x.T, d_out.T),
    "transpose of a tuple": (lambda x: x.transpose((1, 0)), x.T, d_out.T),
    "reshape": (lambda x: x.reshape(9, 1).reshape(-1, 3), x, d_out),
    "reshape to a tuple": (lambda x: x.reshape((9, 1)).reshape([-1, 3]), x, d_out),
    "unsqueeze and squeeze": (lambda x: x.unsqueeze(1).squeeze(-2).unsqueeze(-1).squeeze(2), x, d_out),
    "[]": (lambda x: x[::-1], x[::-1], d_out[::-1]),
    "sum": (
        lambda x: x.sum(axis=0) + 0 * x,
        np.broadcast_to(x.sum(axis=0), (3, 3)),
        np.tile(d_out.sum(axis=0), (3, 1)),
    ),
    "mean": (
        lambda x: x.mean(axis=1, keepdims=True) + 0 * x,
        np.broadcast_to(x.mean(axis=1, keepdims=True), (3, 3)),
        np.broadcast_to(d_out.sum(axis=1, keepdims=True) / 3, (3, 3)),
    ),
    "max": (
        lambda x: x.max(axis=1, keepdims=True) + 0 * x,
        np.broadcast_to(x.max(axis=1, keepdims=True), (3, 3)),
        d_out.sum(axis=1, keepdims=True) * (x == x.max(axis=1, keepdims=True)),
    ),
    "min": (
        lambda x: x.min(axis=0, keepdims=True) + 0 * x,
        np.broadcast_to(x.min(axis=0, keepdims=True), (3, 3)),
        d_out.sum(axis=0, keepdims=True) * (x == x.min(axis=0, keepdims=True)),
    ),
    "var": (lambda x: x.var() + 0 * x, np.full((3, 3), x.var(ddof=1)), d_out.sum() * (x - x.mean()) / 4),
    "std": (
        lambda x: x.std(correction=0) + 0 * x,
        np.full((3, 3), x.std()),
        d_out.sum() * (x - x.mean()) / (9 * x.std()),
    ),
    "softmax": (
        lambda x: x.softmax(0).log(),
        x - np.log(np.exp(x).sum(axis=0)),
        d_out - d_out.sum(axis=0) * np.exp(x) / np.exp(x).sum(axis=0),
    ),
    "log_softmax": (
        lambda x: x.log_softmax(0),
        x - np.log(np.exp(x).sum(axis=0)),
        d_out - d_out.sum(axis=0) * np.exp(x) / np.exp(x).sum(axis=0),
    ),
}
every_sign = pytest.mark.parametrize("sign", BINARY)


@every_sign
def test_operator_of_two_tensors_has_the_value_and_gradients_of_its_formula(sign):
    operate, d_x, d_y = BINARY[sign]
    a, b = Tensor(x), Tensor(y)
    out = operate(a, b)
    out.backward(d_out)
    np.testing.assert_allclose(out.data, operate(x, y))
    np.testing.assert_allclose(a.grad, d_x)
    np.testing.assert_allclose(b.grad, d_y)


@every_sign
def test_array_on_either_side_is_a_constant(sign):
    operate, d_x, d_y = BINARY[sign]
    a, b = Tensor(x), Tensor(y)
    for out in (operate(a, y), operate(x, b)):
        assert type(out) is Tensor
        np.testing.assert_allclose(out.data, operate(x, y))
        out.backward(d_out)
    np.testing.assert_allclose(a.grad, d_x)
    np.testing.assert_allclose(b.grad, d_y)


@pytest.mark.parametrize("sign", [sign for sign in BINARY if sign != "@"])
def test_number_on_either_side_is_a_constant_and_keeps_float32(sign):
    operate = BINARY[sign][0]
    a = Tensor([[1.0, 2.0]])
    for out, expected in ((operate(a, 3), operate(a.data, 3)), (operate(3.0, a), operate(3.0, a.data))):
        out.sum().backward()
        np.testing.assert_allclose(out.data, expected)
        assert (out.dtype, a.grad.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("name", UNARY)
def test_method_has_the_value_and_gradient_of_its_formula(name):
    function, value, d_x = UNARY[name]
    a = Tensor(x)
    out = function(a)
    out.backward(d_out)
    np.testing.assert_allclose(out.data, value)
    np.testing.assert_allclose(a.grad, d_x)


# What a Tensor holds.


@pytest.mark.parametrize("data", [1, 2.5, [1, 2], [[1.0], [2.0]]])
def test_python_numbers_and_lists_become_float32(data):
    assert Tensor(data).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_array_keeps_its_dtype_and_its_memory(dtype):
    array = np.zeros(3, dtype)
    assert Tensor(array).data is array


def test_reduction_to_one_number_holds_an_array():
    assert isinstance(Tensor(x).sum().data, np.ndarray)


@pytest.mark.parametrize("integers", [np.arange(3), np.array([True]), np.array(1, np.uint8)])
def test_integers_are_refused_with_the_remedy(integers):
    with pytest.raises(TypeError, match=r"expected floats, received integers.*pass a bare array"):
        Tensor(integers)


def test_length_iteration_and_index_go_by_rows_and_carry_gradients():
    a: Any = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert len(a) == 3
    first, second, third = a
    (first * 1 + second * 10 + third * 100 + a[-1, 0]).sum().backward()
    np.testing.assert_array_equal(a.grad, [[1, 1], [10, 10], [102, 100]])


@pytest.mark.parametrize(
    "given", [["a"], None, 1j, np.array([None]), [Value(1.0)], np.array([Value(1.0)])], ids=lambda x: type(x).__name__
)
def test_what_is_no_array_of_floats_is_refused(given):
    with pytest.raises(TypeError, match=r"^Tensor: expected numbers, received an array of .*Tensor\.from_values"):
        Tensor(given)


def test_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match=r"^Tensor: expected numbers or an array, received a Tensor; .*detach\(\)"):
        Tensor(Tensor(1.0))


@pytest.mark.parametrize(("make", "number"), [(Tensor.zeros, 0), (Tensor.ones, 1)])
def test_zeros_and_ones_of_a_shape_given_in_either_way(make, number):
    for made in (make(2, 3), make((2, 3)), make([2, 3])):
        np.testing.assert_array_equal(made.data, np.full((2, 3), number))
        assert (made.dtype, made.backend.name) == (np.float32, "numpy")
    assert make().shape == ()
    assert make(2, dtype=np.float64, backend=Tensor(1.0).backend).dtype == np.float64


def test_randn_is_decided_by_its_seed_and_goes_on_drawing_from_a_generator():
    once, again, other = Tensor.randn(400, 5, seed=1), Tensor.randn((400, 5), seed=1), Tensor.randn(400, 5, seed=2)
    assert np.all(once == again)
    assert not np.any(once == other)
    assert abs(once.mean().item()) < 0.1
    assert abs(once.std().item() - 1) < 0.1
    generator = np.random.default_rng(1)
    first, second = Tensor.randn(2, seed=generator), Tensor.randn(2, seed=generator)
    assert not np.any(first == second)
    assert Tensor.randn(seed=0).shape == ()
    with pytest.raises(TypeError, match="seed"):
        Tensor.randn(2)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (Tensor([1.0, 2.5]), "Tensor([1. , 2.5], dtype=float32)"),
        (Tensor(np.array([[1 / 3], [2.0]])), "Tensor([[0.3333],\n        [2.    ]], dtype=float64)"),
        (Tensor(1.0) * 2, "Tensor(2., dtype=float32, op=multiply)"),
        (Tensor.ones(2).gelu().detach() * 0, "Tensor([0., 0.], dtype=float32, op=multiply)"),
        (Tensor.zeros(1000), "Tensor([0., 0., 0., ..., 0., 0., 0.], shape=(1000,), dtype=float32)"),
    ],
)
def test_repr_shows_numbers_dtype_the_op_of_a_result_and_the_shape_where_it_is_long(tensor, text):
    assert repr(tensor) == str(tensor) == f"{tensor}" == text


def test_numpy_and_item_hand_out_the_numbers():
    a = Tensor([[2.5]])
    assert a.numpy() is a.data
    assert (a.item(), type(a.item())) == (2.5, float)
    assert (float(a), int(a), bool(a), bool(a * 0), f"{a:.3f}") == (2.5, 2, True, False, "2.500")


@pytest.mark.parametrize("convert", [float, int, bool, Tensor.item, "{:.2f}".format])
@pytest.mark.parametrize("several", [Tensor([1.0, 2.0]), Tensor.zeros(0)], ids=["two", "none"])
def test_several_elements_are_not_one_number(convert, several):
    with pytest.raises(ShapeError, match=r"^(item|bool): expected one element, received shape \([02],\); "):
        convert(several)


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.array,
        lambda a: np.asarray([a, a]),
        lambda a: np.where(True, a, 0),
        lambda a: np.stack([a, a]),
        lambda a: Tensor([a, a]),
        lambda a: Tensor.from_values([a, a]),
        lambda a: a - [a, a],
        lambda a: [a, a] * a,
        lambda a: a > [a, a],
    ],
)
@pytest.mark.parametrize("a", [Tensor([1.0, 2.0]), Tensor(1.0)], ids=["vector", "scalar"])
def test_no_tensor_becomes_an_array_without_saying_so(convert, a):
    with pytest.raises(TypeError, match=r"a NumPy array would carry no gradient; .*ops\.stack.* numpy\(\)"):
        convert(a)


def test_scalar_has_neither_length_nor_rows():
    for read in (len, list):
        with pytest.raises(TypeError, match=r"^len: a Tensor of no axes has no length$"):
            read(Tensor(1.0))


def test_detached_tensor_shares_the_data_and_lets_no_gradient_through():
    a = Tensor(x)
    detached = (a * 2).detach()
    (a + detached).sum().backward()
    assert detached.parents == ()
    np.testing.assert_array_equal(a.grad, np.ones((3, 3)))
    assert a.detach().data is a.data


COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda compare: compare.__name__)
def test_comparison_looks_at_the_numbers_and_returns_booleans(compare):
    low, high = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
    pairs = (
        (Tensor(low), Tensor(high)),
        (Tensor(low), high),
        (low, Tensor(high)),
        (Tensor(low), 2),
        ([*low], Tensor(high)),
    )
    for left, right in pairs:
        out = compare(left, right)
        assert type(out) is np.ndarray
        np.testing.assert_array_equal(out, compare(low, high))


def test_tensors_with_equal_numbers_are_different_members_of_a_set():
    a, b = Tensor(x), Tensor(x)
    assert len({a, b, a}) == 2
    assert {a: 1, b: 2}[b] == 2


def test_argmax_is_a_bare_index():
    a = Tensor([[1.0, 5.0, 2.0], [9.0, 0.0, 3.0]])
    assert a.argmax() == 3
    np.testing.assert_array_equal(a.argmax(axis=1), [1, 0])
    np.testing.assert_array_equal(a.argmax(-2), [1, 0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a.squeeze(0), "squeeze: expected size 1 along axis 0, received shape (3, 3)"),
        (lambda a: a.squeeze(2), "squeeze: expected an axis from -2 to 1, received 2"),
        (lambda a: a.unsqueeze(-4), "unsqueeze: expected an axis from -3 to 2, received -4"),
    ],
)
def test_axis_that_is_not_there_is_refused(call, message):
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        call(Tensor(x))


# backward.


def test_backward_of_many_numbers_needs_a_seed():
    with pytest.raises(ShapeError, match=r"expected a scalar, received shape \(3, 3\); reduce it or pass .* seed"):
        (Tensor(x) * 2).backward()


@pytest.mark.parametrize("seed", [np.ones(3), np.ones((3, 3, 1)), 1.0])
def test_backward_refuses_a_seed_of_another_shape(seed):
    expected = f"backward: expected a seed of shape (3, 3), received {np.shape(seed)}"
    with pytest.raises(ShapeError, match=f"^{re.escape(expected)}$"):
        (Tensor(x) * 2).backward(seed)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_gradient_of_one_number_is_an_array_of_its_shape(shape):
    a = Tensor(np.full(shape, 3.0))
    (a * a).backward()
    assert isinstance(a.grad, np.ndarray)
    assert (a.grad.shape, a.grad.item()) == (shape, 6)


def test_released_graph_refuses_a_second_sweep_with_the_remedy():
    a = Tensor(3.0)
    inner = a * a
    out = inner * 2
    out.backward()
    assert inner.parents == ()
    for released in (out, inner + 1, a * 2 + inner):
        with pytest.raises(RuntimeError, match="released this graph; pass keep_graph=True"):
            released.backward()
    assert a.grad == 12  # a refused sweep has added nothing


def test_kept_graph_can_be_swept_again_and_shows_inner_gradients():
    a = Tensor(3.0)
    inner = a * a
    out = inner * 2
    out.backward(keep_graph=True)
    out.backward(keep_graph=True)
    assert (a.grad, inner.grad) == (24, 2)


# Who owns a gradient.


def test_leaves_that_receive_the_same_gradient_do_not_share_it():
    a, b, seed = Tensor(x), Tensor(x), np.ones((3, 3))
    (a + b).backward(seed)
    a.grad[0, 0] = 99
    assert (b.grad[0, 0], seed[0, 0]) == (1, 1)


def test_leaf_owns_the_gradient_that_is_its_seed():
    a, seed = Tensor(x), np.ones((3, 3))
    a.backward(seed)
    a.grad += 1
    assert seed[0, 0] == 1


def test_sum_of_gradients_is_not_made_in_one_that_a_sibling_shares():
    a, b = Tensor(x), Tensor(x)
    inner = a * 1
    (inner + b + inner + inner).backward(np.ones((3, 3)))
    np.testing.assert_array_equal(a.grad, np.full((3, 3), 3.0))
    np.testing.assert_array_equal(b.grad, np.ones((3, 3)))


def test_gradient_that_is_a_view_of_a_buffer_is_added_to_in_place():
    buffer = np.zeros(18)
    a, b = Tensor(x), Tensor(y)
    a.grad, b.grad = buffer[:9].reshape(3, 3), buffer[9:].reshape(3, 3)
    for _ in range(2):
        (a * b).backward(np.ones((3, 3)))
    np.testing.assert_allclose(buffer, 2 * np.concatenate([y.ravel(), x.ravel()]))
    assert np.shares_memory(a.grad, buffer)


# The seam to the scalar engine.


def test_one_sweep_crosses_from_tensors_to_values():
    a, b = Value(2.0), Value(3.0)
    weight = Tensor(np.array([[1.0, 10.0], [100.0, 1000.0]]))
    stacked = Tensor.from_values([[a * b, a], [b, a + b]])
    (stacked * weight).sum().backward()
    assert stacked.shape == (2, 2)
    assert (a.grad, b.grad) == (1 * 3 + 10 + 1000, 1 * 2 + 100 + 1000)
    np.testing.assert_array_equal(weight.grad, [[6, 2], [3, 5]])
    assert type(a.grad) is float


# Memory.


def test_intermediate_memory_is_free_after_backward_and_before_the_result_goes():
    inner = Tensor(x) * 2
    memory = weakref.ref(inner.data)
    out = (inner * inner).sum()
    del inner
    assert memory() is not None
    out.backward()
    assert memory() is None


def test_kept_graph_keeps_intermediate_memory():
    inner = Tensor(x) * 2
    memory = weakref.ref(inner.data)
    out = (inner * inner).sum()
    del inner
    out.backward(keep_graph=True)
    assert memory() is not None


def test_memory_falls_while_the_sweep_runs():
    alive = []

    @differentiable
    def witness(x: Any):
        def backward(d_out):
            alive.append(memory() is not None)
            return (d_out,)

        return x + 0, backward

    later = witness(Tensor(x)) * 2
    memory = weakref.ref(later.data)
    out = (later * later).sum()
    del later
    out.backward()
    assert alive == [False]
