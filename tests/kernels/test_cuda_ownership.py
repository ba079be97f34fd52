"""Gradients that kernels overwrite where they lie: the same bits, and never one that somebody else has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.catalogue import CATALOGUE
from tests.cuda_on_cpu.places import PLACES, needs_compiler, open_place
from tests.kernels.test_cuda import CORNERS, TYPES, drawn, moved
from tests.kernels.test_cuda_linears import expect_close
from tests.kernels.test_flash_attention import CALLS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import Unshared, recomputed, watched_ops
from tinygrad_chat.backend import Backend, Compute, get_backend, load_kernels
from tinygrad_chat.nn import NewGradient, Parameters

B, T, H, D = 2, 5, 2, 16
C = H * D


@pytest.fixture(scope="module", params=PLACES)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_place(request.param) as backend:
        yield backend


def turn(device: Backend, **options: Any) -> Callable[..., Tensor]:
    angles = (moved(device, each, np.float32) for each in ops.rotary_angles(T, D))
    given = {**dict(zip(("cosine", "sine"), angles, strict=True)), **options}
    return lambda x, *gain: ops.rotary(x, *gain, **given)


@pytest.mark.parametrize(("width", "start"), [(C, 0), (2 * C, 16), (2 * C, 4), (C + 3, 0), (C + 3, 1)])
@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("gain", [False, True], ids=["", "gain"])
@pytest.mark.parametrize("rms", [None, 1.2], ids=["", "norm"])
def test_rotary_turns_a_slice_back_where_it_lies_if_nobody_else_has_it(
    device: Backend, rms: float | None, gain: bool, real: str, width: int, start: int
):
    inputs = [drawn(B, T, C), *([drawn(D)] if gain else [])]
    given, part = drawn(B, T, width), np.s_[..., start : start + C]
    found = []
    for kind in (tuple, Unshared):
        nodes, whole = [Tensor(moved(device, each, real)) for each in inputs], moved(device, given, real)
        out, before = turn(device, rms=rms)(*nodes), device.to_host(whole).copy()
        gradients = kind([whole[part]])
        Tensor(out.data.reshape(-1)[:1], [out], lambda d_out, gradients=gradients: gradients).backward()
        after, d_x = device.to_host(whole), device.to_host(nodes[0].grad)
        if kind is Unshared:
            before[part] = d_x
        np.testing.assert_array_equal(after, before)
        found.append([d_x, *(device.to_host(each.grad) for each in nodes[1:])])
    for shared, own in zip(*found, strict=True):
        np.testing.assert_array_equal(own, shared)


def twice(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    query = rotate(x)
    return query, ops.attention(query, query, value, heads=H)


def by_two_ops(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    query = rotate(x)
    return query, ops.attention(query, key, value, heads=H) + ops.attention(query, value, key, heads=H) * 2


def and_added(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    query = rotate(x)
    return query, ops.attention(query, key, value, heads=H) + query


def rotated_twice(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    query = rotate(x)
    return query, ops.attention(rotate(query), rotate(key), query, heads=H)


def computed_again(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    query = recomputed(rotate, [x], [])
    return query, ops.attention(query, key, value, heads=H)


def normalised_and_added(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    stream = x + key
    return stream, ops.rmsnorm(stream) * value + stream


def normalised_first_of_several(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    stream, out = ops.add_rmsnorm(x, key)
    return out, ops.rmsnorm(stream) * value + out


def read_in_part(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    stream = x + key
    logits = stream[..., 3 : 3 + H]
    return stream, ops.gated_sum(ops.attention(stream, key, value, heads=H), value, logits, reach=3.0)


def read_in_part_and_added(rotate: Any, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    other, stream = value * 2, x + key
    logits = stream[..., :H] * stream[..., 1 : 1 + H]
    return stream, ops.gated_sum(other + stream, value, logits, reach=3.0)


GRAPHS = (
    *(twice, by_two_ops, and_added, rotated_twice, computed_again),
    *(normalised_and_added, normalised_first_of_several, read_in_part, read_in_part_and_added),
)


@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
@pytest.mark.parametrize("kept", [False, True], ids=["", "kept"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_what_was_computed_has_the_gradient_of_the_ops_however_it_is_used(
    device: Backend, graph: Callable[..., Any], kept: bool, watched: bool
):
    inputs, d_out = [drawn(B, T, C) for _ in range(3)], drawn(B, T, C)
    results = []
    for place in (device, get_backend("numpy")):
        nodes, seed = [Tensor(moved(place, each, np.float32)) for each in inputs], moved(place, d_out, np.float32)
        with watched_ops(lambda op, inputs, options: lambda out, rule: (lambda *d: rule(*d)) if watched else rule):
            inner, out = graph(turn(place, rms=1.2), *nodes)
            for _ in range(1 + kept):
                out.backward(seed, keep_graph=kept)
        np.testing.assert_array_equal(place.to_host(seed), d_out)
        results.append([*(each.grad for each in nodes if each.grad is not None), *([inner.grad] if kept else [])])
    expect_close(device, results[0], [each.astype(np.float64) for each in results[1]], "float32")


@pytest.mark.parametrize("real", TYPES)
def test_gradients_of_gain_and_bias_are_added_up_where_they_lie_and_later_ones_added(device: Backend, real: str):
    x, gain, bias, d_out = (moved(device, drawn(*shape), real) for shape in ((9, 40), (40,), (40,), (9, 40)))
    vectors = {"gain": Tensor(gain), "bias": Tensor(bias)}
    alone = [Tensor(each) for each in (gain, bias)]
    ops.layernorm(Tensor(x), *alone).backward(d_out)
    parameters = Parameters(vectors, compute=Compute(device, "cuda", real), dtype=np.float32)
    parameters.gradient.fill(np.nan)
    new = NewGradient(parameters)
    for times in (1, 2):
        ops.layernorm(Tensor(x), *vectors.values()).backward(d_out, deliver=new.deliver)
        expected = np.concatenate([times * device.to_host(each.grad) for each in alone])
        np.testing.assert_array_equal(device.to_host(parameters.gradient), expected)


@needs_compiler
@pytest.mark.parametrize("real", TYPES)
def test_what_a_rule_gives_away_is_nobody_elses(real: str):
    """Neither another gradient, nor an input, a result or the upstream gradient lies in the same memory."""
    calls = [(ops.attention, call.inputs(64)[:3], call.options(np)) for call in CALLS.values() if call.T < 100]
    calls += [(CATALOGUE[name].op, case.inputs, case.options) for name, case in CORNERS.values()]
    giving = set()
    with open_place("host") as device:
        for op, inputs, options in calls:
            there = [moved(device, x if x.dtype.kind == "i" else x.astype(np.float32), real) for x in inputs]
            options = {name: moved(device, x, np.float32) for name, x in options.items()}
            outs, backward = load_kernels("cuda")[op](*there, **options)
            outs = outs if isinstance(outs, tuple) else (outs,)
            d_outs = [moved(device, drawn(*out.shape), out.dtype) for out in outs]
            given = backward(*d_outs)
            if type(given) is not Unshared:
                continue
            giving.add(op.name)
            mine, others = ([x for x in each if isinstance(x, np.ndarray)] for each in (given, backward(*d_outs)))
            for i, gradient in enumerate(mine):
                for other in (*mine[:i], *others, *there, *outs, *d_outs):
                    assert not np.shares_memory(gradient, other), op.name
    assert giving == {"attention", "linear"}
