"""The residual stream: what is read is the sum so far, and a device adds and normalises in one op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.places import PLACES, open_place
from tinygrad_chat import GPT, ModelOptions, Tensor
from tinygrad_chat.autograd import Operation, no_grad, watched_ops
from tinygrad_chat.backend import Compute
from tinygrad_chat.nn import LayerNorm, Norm, ResidualStream, RMSNorm

random = np.random.default_rng(0)
x, first, second = (random.normal(size=(2, 3, 4)) for _ in range(3))


@pytest.mark.profile("ci")
@pytest.mark.parametrize("norm", [LayerNorm(4), LayerNorm(4, bias=False), RMSNorm(4), RMSNorm(4, gain=False), Norm()])
def test_a_norm_reads_every_branch_added_so_far(norm: Norm):
    stream = ResidualStream(Tensor(x))
    np.testing.assert_array_equal(stream.read(norm).data, norm(Tensor(x)).data)
    stream.add(Tensor(first))
    stream.add(Tensor(second))
    np.testing.assert_allclose(stream.read(norm).data, norm(Tensor(x + first + second)).data, rtol=1e-12)
    np.testing.assert_allclose(stream.read(norm).data, norm(stream.x).data, rtol=1e-12)
    np.testing.assert_allclose(stream.x.data, x + first + second, rtol=1e-15)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("place", PLACES)
def test_where_there_is_a_kernel_each_branch_is_added_by_the_norm_that_reads_it(place: str, norm: str):
    layers, seen = 3, []

    def watch(operation: Operation, inputs: Any, options: Any) -> Any:
        seen.append(operation.name)
        return lambda out, rule: rule

    options = ModelOptions(layers=layers, heads=2, width=8, context=4, norm=norm, positions="rotary")
    with open_place(place) as backend, no_grad(), watched_ops(watch):
        GPT(7, options, compute=Compute.choose(backend)).hidden(np.zeros((1, 4), int))
    assert seen.count(f"add_{norm}") == 2 * layers  # the first norm has nothing to add before it
    assert seen.count(norm) == 1
    assert "add" not in seen
