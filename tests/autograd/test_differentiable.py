"""What `@differentiable` makes of an array function: arrays in, arrays out; nodes in, nodes out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import Tensor
from tinygrad_chat.autograd import ArrayNode, Node, differentiable, no_grad, reference_ops
from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import get_backend


@differentiable
def scaled_sum(x: Any, y: Any, *, factor: Any = 1.0):
    """factor * (x + y)."""

    def backward(d_out):
        return factor * d_out, factor * d_out

    return factor * (x + y), backward


@differentiable
def take(x: Any, positions: Any):
    """x[positions], of arrays that are both nodes; positions have no gradient."""

    def backward(d_out):
        d_x = np.zeros_like(x)
        np.add.at(d_x, positions.astype(int), d_out)
        return d_x, None

    return x[positions.astype(int)], backward


class Plain(ArrayNode):
    """The least that an op asks of a node."""

    __slots__ = ()

    def __init__(self, data: Any, parents: Sequence[Node | None] = (), rule: Rule | None = None) -> None:
        super().__init__(np.asarray(data), parents, rule)


ones = np.ones(3)


def recorded() -> bool:
    return scaled_sum(Tensor(ones), ones).rule is not None


def test_bare_arrays_give_a_bare_array():
    out = scaled_sum(ones, ones, factor=2.0)
    assert type(out) is np.ndarray
    np.testing.assert_array_equal(out, [4, 4, 4])


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ((Tensor(ones), ones), Tensor),
        ((ones, Tensor(ones)), Tensor),
        ((Tensor(ones), Plain(ones)), Tensor),
        ((Plain(ones), Tensor(ones)), Plain),
        ((ones, Plain(ones)), Plain),
    ],
)
def test_result_has_the_class_of_the_first_node(inputs, kind):
    assert type(scaled_sum(*inputs)) is kind


def test_parents_stand_where_the_inputs_stood_and_constants_are_none():
    x = Tensor(ones)
    assert scaled_sum(ones, x).parents == (None, x)
    assert scaled_sum(x, x).parents == (x, x)


def test_option_is_passed_on_as_it_is_and_is_no_parent():
    seen = []

    @differentiable
    def spy(x: Any, *, option: Any):
        seen.append(option)
        return x, lambda d_out: (d_out,)

    x, option = Tensor(ones), Tensor(ones)
    assert spy(x, option=option).parents == (x,)
    assert seen == [option]


def test_input_without_a_gradient_keeps_none():
    x, positions = Tensor(np.array([1.0, 2.0, 3.0])), Tensor(np.array([2.0, 2.0]))
    take(x, positions).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0, 2])
    assert positions.grad is None


def test_rule_may_cover_an_optional_input_that_was_left_out():
    @differentiable
    def shift(x: Any, bias: Any = None):
        return (x if bias is None else x + bias), lambda d_out: (d_out, None if bias is None else 2 * d_out)

    x, bias = Tensor(ones), Tensor(ones)
    shift(x).backward(ones)
    shift(x, bias).backward(ones)
    assert (x.grad[0], bias.grad[0]) == (2, 2)


def test_operation_keeps_the_name_and_the_words_of_its_function():
    assert (scaled_sum.name, scaled_sum.__doc__) == ("scaled_sum", "factor * (x + y).")
    assert repr(scaled_sum) == "<op scaled_sum>"


# Modes.


def test_no_grad_remembers_nothing_and_computes_the_same():
    x = Tensor(ones)
    with no_grad():
        out = scaled_sum(x, ones)
    assert type(out) is Tensor
    assert (out.parents, out.rule) == ((), None)
    np.testing.assert_array_equal(out.data, [2, 2, 2])


def test_no_grad_nests_and_ends_even_when_its_body_fails():
    with no_grad():
        with no_grad():
            assert not recorded()
        assert not recorded()
    assert recorded()
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert recorded()


def test_modes_do_not_disturb_each_other():
    with no_grad(), reference_ops():
        assert not recorded()
    with no_grad():
        with reference_ops():
            pass
        assert not recorded()


def test_no_grad_holds_in_its_own_thread_alone():
    elsewhere = []
    with no_grad():
        thread = threading.Thread(target=lambda: elsewhere.append(recorded()))
        thread.start()
        thread.join()
        assert not recorded()
    assert elsewhere == [True]


@pytest.fixture
def kernel(monkeypatch):
    """A kernel for `scaled_sum` that can be told from the reference by its result."""

    def wrong_by_100(x: Any, y: Any, *, factor: Any = 1.0) -> tuple[Any, Rule]:
        return x + y + 100, lambda d_out: (d_out + 100, d_out + 100)

    kernels: Any = get_backend("numpy").kernels
    monkeypatch.setitem(kernels, scaled_sum, wrong_by_100)


@pytest.mark.usefixtures("kernel")
def test_nodes_run_the_kernel_and_its_rule():
    x = Tensor(ones)
    out = scaled_sum(x, ones)
    out.backward(ones)
    assert (out.data[0], x.grad[0]) == (102, 101)


@pytest.mark.usefixtures("kernel")
def test_reference_ops_bypasses_the_kernel():
    x = Tensor(ones)
    with reference_ops():
        out = scaled_sum(x, ones)
    out.backward(ones)
    assert (out.data[0], x.grad[0]) == (2, 1)
    assert scaled_sum(x, ones).data[0] == 102


@pytest.mark.usefixtures("kernel")
def test_bare_arrays_run_the_reference():
    assert scaled_sum(ones, ones)[0] == 2
