"""The checkers, checked: each must object to every rule that is wrong, naming the input, and to none that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from tests import test_catalogue
from tests.catalogue import Case, Entry
from tinygrad_chat import ops
from tinygrad_chat.autograd import differentiable
from tinygrad_chat.autograd.check import WrongGradientError, check_exactly, check_numerically
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.ops.broadcasting import sum_to

Gradients = Callable[[Any, Any, Any, Any], Sequence[Any]]

random = np.random.default_rng(0)
x, y, z = (random.normal(size=(4, 3)) for _ in range(3))
row, column = random.normal(size=3), random.normal(size=(4, 1))
square, square_row = random.normal(size=(3, 3)), random.normal(size=3)


def op_with(gradients: Gradients) -> Any:
    """x * y - z with this backward rule."""

    @differentiable
    def multiply_subtract(x: Any, y: Any, z: Any):
        return x * y - z, lambda d_out: gradients(d_out, x, y, z)

    return multiply_subtract


def right(d_out: Any, x: Any, y: Any, z: Any) -> Sequence[Any]:
    return sum_to(d_out * y, x), sum_to(d_out * x, y), sum_to(-d_out, z)


def spoiled(position: int, spoil: Callable[[Any], Any]) -> Gradients:
    """The right rule but for one gradient."""

    def gradients(d_out: Any, x: Any, y: Any, z: Any) -> Sequence[Any]:
        result = list(right(d_out, x, y, z))
        result[position] = spoil(result[position])
        return result

    return gradients


def in_one_element(gradient: Any) -> Any:
    gradient = gradient.copy()
    gradient[2, 1] *= 1.001
    return gradient


# name: (rule, inputs, the input whose gradient is wrong)
WRONG: dict[str, tuple[Gradients, tuple[Any, ...], int]] = {
    "off by 0.1 % in the first": (spoiled(0, lambda d: 1.001 * d), (x, y, z), 0),
    "off by 0.1 % in the second": (spoiled(1, lambda d: 0.999 * d), (x, y, z), 1),
    "off by 0.1 % in the last": (spoiled(2, lambda d: 1.001 * d), (x, y, z), 2),
    "off by 0.1 % in one element": (spoiled(1, in_one_element), (x, y, z), 1),
    "wrong sign": (spoiled(2, lambda d: -d), (x, y, z), 2),
    "dropped": (spoiled(1, lambda d: None), (x, y, z), 1),
    "shorter than the inputs": (lambda *given: right(*given)[:2], (x, y, z), 2),
    "not a number": (spoiled(0, lambda d: d * np.nan), (x, y, z), 0),
    "forgets to sum over rows": (lambda d, x, y, z: (d * y, d * x, -d), (x, row, z), 1),
    "forgets to sum over columns": (lambda d, x, y, z: (d * y, d * x, -d), (x, y, column), 2),
    "forgets to sum a number's": (lambda d, x, y, z: (d * y, d * x, -d), (x, y, np.asarray(0.5)), 2),
    "sums over the wrong axis": (lambda d, x, y, z: (d * y, d * x, -d.sum(axis=1)), (square, square, square_row), 2),
    "transposed": (spoiled(1, lambda d: d.T), (x, y, z), 1),
    "flattened": (spoiled(0, lambda d: d.ravel()), (x, y, z), 0),
    "with an axis too many": (spoiled(0, lambda d: d[None]), (x, y, z), 0),
}
RIGHT = {
    "one shape": (x, y, z),
    "broadcast row": (x, row, z),
    "broadcast column": (x, y, column),
    "broadcast number": (np.asarray(0.5), y, z),
    "square": (square, square, square_row),
}

both_checkers = pytest.mark.parametrize("check", [check_exactly, check_numerically])


@both_checkers
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_rule_is_refused_by_the_name_of_op_and_input(check, wrong):
    gradients, inputs, position = WRONG[wrong]
    with pytest.raises(WrongGradientError, match=rf"multiply_subtract: .*input {position} "):
        check(op_with(gradients), *inputs)


@both_checkers
@pytest.mark.parametrize("inputs", RIGHT.values(), ids=RIGHT.keys())
def test_right_rule_passes(check, inputs):
    assert check(op_with(right), *inputs) < 1e-9


@both_checkers
def test_integers_beside_the_inputs_are_left_alone(check):
    assert check(ops.embedding, x, np.array([0, 2, 2])) < 1e-9


@both_checkers
def test_rule_that_writes_into_what_its_siblings_receive_is_refused(check):
    def in_place(d_out: Any, x: Any, y: Any, z: Any) -> Sequence[Any]:
        d_x, d_y = d_out * y, d_out * x
        d_out *= -1
        return d_x, d_y, d_out

    with pytest.raises(ValueError, match="read-only"):
        check(op_with(in_place), x, y, z)


def test_exact_check_refuses_a_gradient_rounded_to_float32():
    rounded = spoiled(1, lambda d: d.astype(np.float32).astype(np.float64))
    with pytest.raises(WrongGradientError, match="input 1 "):
        check_exactly(op_with(rounded), x, y, z)


# The catalogue's own tests, fed with a case of an op that is wrong.


@differentiable
def widens_its_result(x: Any):
    """2 x, in float64 whatever comes in."""
    return x * np.float64(2), lambda d_out: (2 * d_out,)


@differentiable
def widens_its_gradient(x: Any):
    """2 x, its gradient in float64."""
    return 2 * x, lambda d_out: (d_out * np.float64(2),)


@differentiable
def writes_into_its_input(x: Any):
    """2 x, by doubling x where it lies."""
    x *= 2
    return x + 0, lambda d_out: (2 * d_out,)


@differentiable
def hands_on_a_gradient_of_another_shape(x: Any):
    """2 x, its gradient with an axis too many."""
    return 2 * x, lambda d_out: (2 * d_out[None],)


@differentiable
def is_not_what_pytorch_computes(x: Any):
    """1.001 times 2 x, consistently."""
    return 2.002 * x, lambda d_out: (2.002 * d_out,)


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    ("test", "op"),
    [
        (test_catalogue.test_float32_stays_float32_in_value_and_gradients, widens_its_result),
        (test_catalogue.test_float32_stays_float32_in_value_and_gradients, widens_its_gradient),
        (test_catalogue.test_gradients_have_their_inputs_shapes_and_inputs_stay_untouched, writes_into_its_input),
        (
            test_catalogue.test_gradients_have_their_inputs_shapes_and_inputs_stay_untouched,
            hands_on_a_gradient_of_another_shape,
        ),
        (test_catalogue.test_value_and_gradients_agree_with_pytorch, is_not_what_pytorch_computes),
    ],
)
def test_catalogue_objects(test, op):
    entry = Entry(op, st.nothing(), torch=lambda x: 2 * x)
    data = SimpleNamespace(draw=lambda strategy: Case((x.copy(),)))
    # A leaf itself refuses a gradient of another shape.
    with pytest.raises(ShapeError if op is hands_on_a_gradient_of_another_shape else AssertionError):
        test.hypothesis.inner_test(entry, data)
