"""Who may overwrite a gradient: the rule that receives it, if nobody else has it or will look at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import Tensor
from tinygrad_chat.autograd import PendingGradient, Unshared, differentiable, may_overwrite, recomputed, watched_ops

ones = np.ones(3)


@differentiable
def asking(x: Any, *, answers: list[bool]):
    """x. The rule writes down whether it may overwrite its gradient."""

    def backward(d_out):
        answers.append(may_overwrite(d_out))
        return (d_out,)

    return x + 0, backward


@differentiable
def new(x: Any):
    """x. The rule's gradient is new."""
    return x + 0, lambda d_out: Unshared((d_out + 0,))


@differentiable
def two(x: Any):
    """x and x. The rule's gradient is new."""

    def backward(*d_outs):
        return Unshared((sum(d_out for d_out in d_outs if d_out is not None) + 0,))

    return (x + 0, x + 0), backward


def other(x: Tensor) -> Tensor:
    return x * 2


def again(out: Any, rule: Any) -> Any:
    return lambda *d_outs: rule(*d_outs)


SWEEPS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "the only gradient is new": (new, True),
    "both gradients are new": (lambda x: new(x) + new(x), True),
    "a new one comes before another": (lambda x: other(x) + new(x), True),
    "a new one comes after another": (lambda x: new(x) + other(x), False),
    "the gradient may be shared": (lambda x: x + x, False),
    "the seed": (lambda x: x, False),
    "the result is one of several": (lambda x: two(x)[1], True),
    "a second sweep": (lambda x: recomputed(new, [x], []), False),
}


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("name", SWEEPS)
def test_a_rule_may_overwrite_a_gradient_that_began_as_a_new_one(name: str, watched: bool):
    build, may = SWEEPS[name]
    answers: list[bool] = []
    with watched_ops(lambda op, inputs, options: again if watched else lambda out, rule: rule):
        build(asking(Tensor(ones), answers=answers)).backward(ones)
    assert answers == [may]


def test_no_rule_may_overwrite_a_gradient_that_a_kept_graph_shows():
    answers: list[bool] = []
    new(asking(Tensor(ones), answers=answers)).backward(ones, keep_graph=True)
    assert answers == [False]


def test_a_rule_that_sweeps_by_itself_still_has_its_seed():
    answers: list[bool] = []

    def function(x: Tensor) -> Tensor:
        return asking(x, answers=answers)

    new(recomputed(function, [Tensor(ones)], [])).backward(ones)
    assert answers == [False]


def test_a_rule_that_is_called_by_anything_but_a_sweep_may_overwrite_nothing():
    answers: list[bool] = []
    inside: list[Any] = []

    @differentiable
    def calling(x: Any):
        def backward(d_out):
            rule = asking(Tensor(ones), answers=answers).rule
            assert rule is not None
            inside.append(d_out)
            rule(d_out + 0)
            return (d_out,)

        return x + 0, backward

    new(calling(Tensor(ones))).backward(ones)
    rule = asking(Tensor(ones), answers=answers).rule
    assert rule is not None
    rule(inside[0])
    assert answers == [False, False]


class Waiting(PendingGradient):
    """Ones; writes down what it is added to, and whether that may be overwritten."""

    shape = (3,)

    def __init__(self, told: list[Any]) -> None:
        self._told = told

    def array(self) -> np.ndarray:
        self._told.append("alone")
        return np.ones(3)

    def plus(self, total: Any, *, own: bool) -> Any:
        self._told.append((total.tolist(), own))
        return super().plus(total, own=own)


@differentiable
def waiting(x: Any, *, told: list[Any]):
    """x. The rule's gradient waits for others of x."""
    return x + 0, lambda d_out: (Waiting(told),)


NODES: dict[str, tuple[Callable[[Tensor, list[Any]], Tensor], list[Any], list[float]]] = {
    "alone": (lambda x, told: waiting(x, told=told), ["alone"], [1, 1, 1]),
    "first": (lambda x, told: other(x) + waiting(x, told=told), ["alone"], [3, 3, 3]),
    "after one that may be shared": (lambda x, told: waiting(x, told=told) + x, [([1] * 3, False), "alone"], [2] * 3),
    "after a new one": (lambda x, told: waiting(x, told=told) + new(x), [([1] * 3, True), "alone"], [2, 2, 2]),
    "after a sum": (lambda x, told: waiting(x, told=told) + (x + x), [([2] * 3, True), "alone"], [3, 3, 3]),
    "after that of another result": (
        lambda x, told: (lambda one, two: waiting(one, told=told) + two)(*two(x)),
        ["alone"],
        [2, 2, 2],
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_a_gradient_that_waits_is_added_to_those_that_came_before(name: str):
    build, expected, gradient = NODES[name]
    told: list[Any] = []
    leaf = Tensor(ones)
    build(leaf + 0, told).backward(ones)
    assert told == expected
    np.testing.assert_array_equal(leaf.grad, gradient)


def test_a_rule_that_fails_leaves_nothing_to_overwrite():
    kept: list[Any] = []

    @differentiable
    def failing(x: Any):
        def backward(d_out):
            kept.append(d_out)
            raise MemoryError

        return x + 0, backward

    with pytest.raises(MemoryError):
        new(failing(Tensor(ones))).backward(ones)
    assert not may_overwrite(kept[0])
