"""A norm with an addition before it: where one of its two results leads nowhere, and what does not fit."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of, no_grad, watched_ops
from tinygrad_chat.errors import ShapeError

random = np.random.default_rng(0)
x, branch, d_out = random.normal(size=(3, 2, 4, 6))
gain = random.normal(size=6)

every_kind = pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
NORMS = {ops.add_layernorm: ops.layernorm, ops.add_rmsnorm: ops.rmsnorm}


@every_kind
@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("added", NORMS, ids=lambda op: op.name)
def test_gradients_are_those_of_an_addition_and_a_norm(added: Any, used: tuple[bool, bool], kernel_set: str):
    results = []
    for fused in (True, False):
        nodes = [Tensor(array) for array in (x, branch, gain)]
        with kernels_of(kernel_set):
            if fused:
                outs = added(*nodes)
            else:
                total = nodes[0] + nodes[1]
                outs = total, NORMS[added](total, nodes[2])
            parts = [out * d_out for out, use in zip(outs, used, strict=True) if use]
            functools.reduce(ops.add, parts).sum().backward()
        results.append([*(out.data for out in outs), *(node.grad for node in nodes)])
    for one, other in zip(*results, strict=True):
        if one is None:
            assert other is None
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@every_kind
@pytest.mark.parametrize("added", NORMS, ids=lambda op: op.name)
def test_a_branch_of_another_shape_is_refused(added: Any, kernel_set: str):
    with kernels_of(kernel_set), pytest.raises(ShapeError, match="expected x and branch of one shape"):
        added(Tensor(x), Tensor(branch[0]), Tensor(gain))


def test_the_sum_may_be_used_again_and_again():
    nodes = [Tensor(array) for array in (x, branch, gain)]
    total, out = ops.add_layernorm(*nodes)
    (total * 2.0 + total * 3.0 + total.sum() + out).sum().backward()
    plain = [Tensor(array) for array in (x, branch, gain)]
    total = plain[0] + plain[1]
    (total * 2.0 + total * 3.0 + total.sum() + ops.layernorm(total, plain[2])).sum().backward()
    for one, other in zip(nodes, plain, strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=1e-12)


def test_without_recording_both_results_remember_nothing():
    with no_grad():
        assert [out.parents for out in ops.add_layernorm(Tensor(x), branch, gain)] == [(), ()]


def test_bare_arrays_give_bare_arrays():
    total, out = ops.add_rmsnorm(x, branch)
    np.testing.assert_array_equal(total, x + branch)
    np.testing.assert_array_equal(out, ops.rmsnorm(x + branch))


def test_a_watcher_sees_the_op_once_with_both_results():
    seen: list[Any] = []

    def watch(operation: Any, inputs: Any, options: Any) -> Any:
        def finish(out: Any, rule: Any) -> Any:
            seen.append((operation.name, len(out)))
            return rule

        return finish

    with watched_ops(watch):
        ops.add_layernorm(Tensor(x), Tensor(branch), Tensor(gain))
    assert seen == [("add_layernorm", 2)]
