"""What `@differentiable` makes of an array function: arrays in, arrays out; nodes in, nodes out."""

from __future__ import annotations

import inspect
import pydoc
import threading
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, standing_in
from tinygrad_chat import Tensor
from tinygrad_chat.autograd import (
    ArrayNode,
    Node,
    PendingGradient,
    backpropagate_arrays,
    compute_for,
    computing_with,
    differentiable,
    no_grad,
    reference_ops,
)
from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import Compute, default_compute, get_backend
from tinygrad_chat.parallel import ThreadTeam


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

    def __init__(self, data: Any, *computed: Any) -> None:
        super().__init__(np.asarray(data), *computed)


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


def test_signature_and_help_show_the_parameters_of_the_function():
    assert [*inspect.signature(scaled_sum).parameters] == ["x", "y", "factor"]
    page = pydoc.plain(pydoc.render_doc(scaled_sum))
    assert "scaled_sum(x: 'Any', y: 'Any', *, factor: 'Any' = 1.0)\n    factor * (x + y)." in page


def test_input_given_by_its_name_is_an_input_all_the_same():
    x, y = Tensor(ones), Tensor(2 * ones)
    out = scaled_sum(x, y=y, factor=3.0)
    assert out.parents == (x, y)
    out.backward(ones)
    assert (out.data[0], x.grad[0], y.grad[0]) == (9, 3, 3)
    assert scaled_sum(y=y, x=x).parents == (x, y)  # pyright: ignore[reportCallIssue]


def test_optional_input_given_by_its_name_leaves_those_before_it_out():
    @differentiable
    def shift(x: Any, scale: Any = None, bias: Any = None):
        assert scale is None
        return x + bias, lambda d_out: (d_out, None, d_out)

    x, bias = Tensor(ones), Tensor(ones)
    assert shift(x, bias=bias).parents == (x, None, bias)


def test_missing_and_unknown_arguments_are_refused_as_a_function_refuses_them():
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'y'"):
        scaled_sum(Tensor(ones))  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'factr'"):
        scaled_sum(Tensor(ones), y=ones, factr=2.0)  # pyright: ignore[reportCallIssue]


def test_op_that_is_an_attribute_of_a_class_is_a_method():
    class Summing(Plain):
        __slots__ = ()
        plus = scaled_sum

    x, y = Summing(ones), Plain(ones)
    assert Summing.plus is scaled_sum
    assert x.plus(y, factor=3.0).parents == (x, y)
    assert type(x.plus(y)) is Summing


def test_list_of_numbers_is_an_array():
    numbers: Any = [1, 2]
    np.testing.assert_array_equal(scaled_sum(numbers, [3, 4]), [4, 6])
    assert scaled_sum(Tensor(ones.astype(np.float32)), [1.0, 2.0, 3.0]).dtype == np.float32


@pytest.mark.parametrize("others", [(), (ones,), (Tensor(ones),)])
@pytest.mark.parametrize("nodes", [[Tensor(1.0), Tensor(2.0)], (Tensor(ones), 1.0), [[Tensor(1.0)]]])
def test_list_of_tensors_is_refused_with_the_remedy(nodes, others):
    @differentiable
    def total(*inputs: Any):
        raise AssertionError(inputs)

    with pytest.raises(TypeError, match=r"ops\.stack and ops\.concatenate join Tensors"):
        total(*others, nodes, 1.0)


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


def test_the_compute_in_force_holds_for_its_back_end_in_its_own_thread_and_in_ranks_started_from_it():
    default, other = default_compute(get_backend("numpy")), Compute.choose("numpy", "reference")
    found = []
    with computing_with(other):
        thread = threading.Thread(target=lambda: found.append(compute_for(ones)))
        thread.start()
        thread.join()
        found += ThreadTeam(2).run(lambda communicator: compute_for(ones))
        with computing_with(default):
            found.append(compute_for(ones))
        with standing_in():
            found.append(compute_for(DEVICE.xp.asarray(ones)))
    assert found == [default, other, other, default, default_compute(DEVICE)]
    assert compute_for(ones) is default


@pytest.fixture
def kernel(monkeypatch):
    """A kernel for `scaled_sum` that can be told from the reference by its result."""

    def wrong_by_100(x: Any, y: Any, *, factor: Any = 1.0) -> tuple[Any, Rule]:
        return x + y + 100, lambda d_out: (d_out + 100, d_out + 100)

    kernels: Any = default_compute(get_backend("numpy")).kernel_table
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


def test_gradients_that_wait_for_those_of_the_rules_other_leaves_are_finished_once_all_are_delivered():
    told: list[str] = []

    class Waiting(PendingGradient):
        shape = (2,)

        def __init__(self, name: str) -> None:
            self.name = name

        def finish(self) -> None:
            told.append(f"finish {self.name}")

        def array(self) -> np.ndarray:
            return np.ones(2)

    one, other, third = Plain(ones), Plain(ones), Plain(ones)
    inner = Plain(ones, (third,), lambda d_out: (Waiting("younger"),))
    root = Plain(ones, (one, inner, other), lambda d_out: [Waiting(name) for name in ("first", "inner", "last")])
    names: dict[Node, str] = {one: "first", other: "last", third: "younger"}
    backpropagate_arrays(root, ones, deliver=lambda leaf, gradient: told.append(f"deliver {names[leaf]}"))
    assert told == ["deliver first", "deliver last", "finish first", "finish last", "deliver younger", "finish younger"]


def test_a_leaf_of_any_class_adds_up_what_two_sweeps_bring():
    leaf = Plain(np.array([1.0, 2.0]))
    for _ in range(2):
        backpropagate_arrays(scaled_sum(leaf, np.ones(2), factor=2.0), np.ones(2))
    np.testing.assert_array_equal(leaf.grad, [4, 4])


@pytest.mark.parametrize("number", [2, 0.5, np.float64(0.5)])
def test_a_number_does_not_widen_bfloat16_either_way(number: Any):
    x = Tensor(np.array([1.0, 3.0]).astype("bfloat16"))
    for out in (x * number, number + x, x - number):
        assert out.dtype == x.dtype
        out.sum().backward()
        assert x.grad.dtype == x.dtype
        x.grad = None
