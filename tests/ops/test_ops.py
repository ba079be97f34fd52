"""What ops promise beyond their formula: extreme numbers, hidden positions, ties, and errors that say what came."""

from __future__ import annotations

import functools
import math
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import Tensor, ops
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.ops.dropout import uniform

random = np.random.default_rng(0)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape)


# cross_entropy and softmax


def test_loss_over_no_token_is_zero_and_so_is_its_gradient():
    logits = Tensor(random.normal(size=(2, 3, 5)))
    loss = ops.cross_entropy(logits, np.full((2, 3), -1))
    loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(logits.grad, zeros(2, 3, 5))


def test_ignored_token_counts_in_neither_sum_nor_number():
    logits, targets = random.normal(size=(4, 5)), np.array([1, 7, 3, 7])
    with_ignored = ops.cross_entropy(logits, targets, ignore_index=7)
    np.testing.assert_allclose(with_ignored, ops.cross_entropy(logits[::2], targets[::2]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_cost_what_they_differ_by(dtype):
    logits = Tensor(np.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], dtype))
    loss = ops.cross_entropy(logits, np.array([0, 1]))
    loss.backward()
    assert loss.item() == 1e4  # the mean of 0 and 2e4
    np.testing.assert_array_equal(logits.grad, [[0, 0, 0], [0.5, -0.5, 0]])


@pytest.mark.parametrize("V", [1, 2, 65])
def test_even_guess_costs_log_of_the_vocabulary(V):
    np.testing.assert_allclose(ops.cross_entropy(np.full((3, V), 7.0), zeros(3).astype(int)), math.log(V))


def test_soft_cap_bounds_what_any_logits_can_cost():
    loss = ops.cross_entropy(np.array([[-1e4, 1e4]]), np.array([0]), soft_cap=3.0)
    np.testing.assert_allclose(loss, math.log1p(math.exp(6.0)))


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
@pytest.mark.parametrize("huge", [1e4, 1e30])
def test_softmax_of_huge_numbers_is_that_of_their_differences(op, huge):
    x = np.array([0.0, 1.0, -2.0])
    np.testing.assert_allclose(op(x + 1e4), op(x), atol=1e-10)
    assert np.all(np.isfinite(op(np.array([huge, -huge, 0.0]))))


# attention


attend = functools.partial(ops.attention, heads=4)


@pytest.fixture
def streams() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query (B, T, H D) of four heads, key and value (B, T, G D) of two, eight channels each."""
    return random.normal(size=(2, 6, 32)), random.normal(size=(2, 6, 16)), random.normal(size=(2, 6, 16))


def repeat_heads(x: np.ndarray) -> np.ndarray:
    return x.reshape(2, 6, 2, 8).repeat(2, axis=2).reshape(2, 6, 32)


def changed_from(t: int, array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed[:, t:] += 1 + random.normal(size=changed[:, t:].shape)
    return changed


def test_causal_attention_ignores_what_comes_later(streams):
    before = attend(*streams)
    after = attend(*(changed_from(4, array) for array in streams))
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert np.all(np.abs(after[:, 4:] - before[:, 4:]).max(axis=-1) > 1e-3)


def test_attention_that_is_not_causal_sees_what_comes_later(streams):
    query, key, value = streams
    before = attend(query, key, value, causal=False)
    after = attend(query, key, changed_from(5, value), causal=False)
    assert np.all(np.abs(after - before).max(axis=-1) > 1e-6)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_window_counts_the_positions_seen_with_the_own(streams, window):
    query, key, value = streams
    before = attend(query, key, value, window=window)
    changed = value.copy()
    changed[:, 1] += 1
    difference = np.abs(attend(query, key, changed, window=window) - before).max(axis=(0, 2))
    sees_position_1 = [False, *(t - 1 < window for t in range(1, 6))]
    np.testing.assert_array_equal(difference > 1e-9, sees_position_1)


def test_window_of_one_hands_each_position_its_own_value(streams):
    query, key, value = streams
    np.testing.assert_allclose(attend(query, key, value, window=1), repeat_heads(value))


def test_shared_heads_equal_heads_repeated_side_by_side(streams):
    query, key, value = streams
    repeated = attend(query, repeat_heads(key), repeat_heads(value))
    np.testing.assert_allclose(attend(query, key, value), repeated)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("T", [1, 2])
def test_last_queries_alone_equal_the_last_rows_of_all(streams, T, window):
    query, key, value = streams
    last = attend(query[:, -T:], key, value, window=window)
    np.testing.assert_allclose(last, attend(query, key, value, window=window)[:, -T:])


def test_attention_to_scores_beyond_exp_stays_finite(streams):
    query, key, value = streams
    assert np.all(np.isfinite(attend(1e4 * query, key, value)))


# rotary


def test_angles_grow_with_position_and_slow_down_from_pair_to_pair():
    cosine, sine = ops.rotary_angles(3, 4, base=100.0)
    angles = [[0, 0], [1, 0.1], [2, 0.2]]
    np.testing.assert_allclose(cosine, np.cos(angles), rtol=1e-6)
    np.testing.assert_allclose(sine, np.sin(angles), rtol=1e-6)


def test_rotary_pairs_may_turn_more_slowly():
    cosine, sine = ops.rotary_angles(3, 4, base=100.0, scales=[0.5, 1.0])
    np.testing.assert_allclose(np.arctan2(sine, cosine), [[0, 0], [0.5, 0.1], [1, 0.2]])


def test_rotary_keeps_lengths():
    x = random.normal(size=(2, 5, 8))
    cosine, sine = ops.rotary_angles(5, 8)
    turned = ops.rotary(x, cosine=cosine, sine=sine)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])


def test_turned_query_and_key_meet_by_their_distance_alone():
    query, key = random.normal(size=8), random.normal(size=8)
    cosine, sine = ops.rotary_angles(40, 8)
    queries, keys = (ops.rotary(np.tile(x, (40, 1)), cosine=cosine, sine=sine) for x in (query, key))
    scores = queries @ keys.T
    for distance in range(-20, 21, 5):
        np.testing.assert_allclose(np.diagonal(scores, distance), np.diagonal(scores, distance)[0], atol=1e-5)
    assert np.ptp(scores[0]) > 0.1  # and distances do differ


# dropout


def test_dropout_keeps_the_mean_and_drops_its_share():
    out = np.stack([ops.dropout(np.ones((100, 100)), rate=0.3, seed=seed) for seed in range(25)])
    assert np.mean(out) == pytest.approx(1, abs=0.006)  # 4.6 standard deviations
    assert np.mean(out == 0) == pytest.approx(0.3, abs=0.004)
    np.testing.assert_allclose(out[out != 0], 1 / 0.7)


def test_dropouts_random_numbers_are_splitmix64s():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    drawn = uniform(np, 1234567, 0, 4)
    np.testing.assert_array_equal(drawn, np.array([(number >> 40) / 2**24 for number in published], np.float32))
    np.testing.assert_array_equal(uniform(np, 1234567, 2, 2), drawn[2:])


def test_dropout_is_decided_by_its_seed():
    x = np.ones(100)
    once, again, other = (ops.dropout(x, rate=0.5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert np.any(once != other)


def test_dropout_lets_gradients_through_where_it_let_numbers_through():
    x = Tensor(np.ones(100))
    out = ops.dropout(x, rate=0.5, seed=1)
    out.backward(np.ones(100))
    np.testing.assert_array_equal(x.grad, out.data)


def test_dropout_of_nothing_is_the_identity():
    x = random.normal(size=100)
    np.testing.assert_array_equal(ops.dropout(x, rate=0.0, seed=1), x)


# The others.


def test_embedding_adds_the_gradients_of_a_token_seen_twice():
    table = Tensor(zeros(3, 2))
    ops.embedding(table, np.array([[1, 1], [1, 2]])).backward(np.arange(8.0).reshape(2, 2, 2))
    np.testing.assert_array_equal(table.grad, [[0, 0], [0 + 2 + 4, 1 + 3 + 5], [6, 7]])


@pytest.mark.parametrize("mask", [[True, False, True], [[True, False], [False, False], [False, True]]])
def test_mask_takes_elements_and_gives_gradients_to_those_alone(mask):
    x, mask = Tensor(np.arange(6.0).reshape(3, 2)), np.array(mask)
    out = ops.index(x, key=mask)
    np.testing.assert_array_equal(out.data, x.data[mask])
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, np.broadcast_to(mask.reshape(3, -1), (3, 2)))


@pytest.mark.parametrize(
    ("axis", "gradient"),
    [(None, [[0, 0.5, 0], [0.5, 0, 0]]), (1, [[0, 1, 0], [1, 0, 0]]), (0, [[0, 1, 0.5], [1, 0, 0.5]])],
)
def test_equally_large_elements_share_the_gradient_of_max(axis, gradient):
    x = Tensor([[1.0, 3.0, 2.0], [3.0, 1.0, 2.0]])
    x.max(axis=axis).sum().backward()
    np.testing.assert_array_equal(x.grad, gradient)


def test_zero_to_the_power_zero_is_one_with_finite_gradients():
    x, y = Tensor([0.0, 0.0]), Tensor([0.0, 2.0])
    out = x**y
    out.sum().backward()
    np.testing.assert_array_equal(out.data, [1, 0])
    np.testing.assert_array_equal(x.grad, [0, 0])
    np.testing.assert_array_equal(y.grad, [0, 0])


def test_gelu_is_close_to_x_times_the_normal_distribution():
    x = np.linspace(-6, 6, 1001)
    exact = x * np.array([0.5 * (1 + math.erf(number / math.sqrt(2))) for number in x])
    np.testing.assert_allclose(ops.gelu(x), exact, atol=1e-3)


def test_sigmoid_of_huge_numbers_does_not_overflow():
    np.testing.assert_array_equal(ops.sigmoid(np.array([-1e4, 0.0, 1e4])), [0, 0.5, 1])


def test_transposed_operand_is_multiplied_without_a_copy():
    x, weight = np.ones((4, 500)), np.ones((1000, 500))
    tracemalloc.start()
    try:
        ops.matmul(x, weight.T)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < weight.nbytes / 10


@pytest.mark.parametrize("constant_row", [zeros(2, 4), np.full((2, 4), 3.0)])
def test_constant_rows_are_normalised_to_finite_numbers_with_finite_gradients(constant_row):
    for op in (ops.layernorm, ops.rmsnorm):
        x, gain = Tensor(constant_row), Tensor(np.ones(4))
        out = op(x, gain)
        out.sum().backward()
        assert all(np.all(np.isfinite(array)) for array in (out.data, x.grad, gain.grad))


# Errors.

angles = dict(zip(("cosine", "sine"), ops.rotary_angles(5, 6), strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.matmul(zeros(2, 3), zeros(2, 3)),
            "matmul: expected (..., N, K) @ (..., K, M), received (2, 3) @ (2, 3)",
        ),
        (
            lambda: ops.matmul(zeros(3), zeros(3, 2)),
            "matmul: expected (..., N, K) @ (..., K, M), received (3,) @ (3, 2)",
        ),
        (
            lambda: ops.linear(zeros(2, 3), zeros(5, 4)),
            "linear: weight has shape (5, 4) but rows of x have 3 features",
        ),
        (
            lambda: ops.linear(zeros(2, 3), zeros(5, 3), zeros(1)),
            "linear: bias has shape (1,) but the output has 5 features",
        ),
        (
            lambda: ops.linears(zeros(2, 3), zeros(5, 3), zeros(4, 3), zeros(5)),
            "linears: expected weights (D, C), then no bias or one (D,) for each, received [(5, 3), (4, 3), (5,)]",
        ),
        (
            lambda: ops.linears(zeros(2, 3), zeros(5, 3), zeros(5), zeros(4, 3)),
            "linears: expected weights (D, C), then no bias or one (D,) for each, received [(5, 3), (5,), (4, 3)]",
        ),
        (
            lambda: ops.layernorm(zeros(2, 8), zeros(4)),
            "layernorm: gain has shape (4,) but rows of x have 8 features",
        ),
        (
            lambda: ops.layernorm(zeros(2, 8), zeros(8), zeros(1)),
            "layernorm: bias has shape (1,) but rows of x have 8 features",
        ),
        (lambda: ops.rmsnorm(zeros(2, 8), zeros(4)), "rmsnorm: gain has shape (4,) but rows of x have 8 features"),
        (
            lambda: ops.attention(zeros(1, 4, 6), zeros(1, 4, 4), zeros(1, 4, 4), heads=3),
            "attention: expected query (B, T, 3 D), key and value (B, S, G D) with G dividing 3 and T <= S > 0, "
            "received (1, 4, 6), (1, 4, 4), (1, 4, 4)",
        ),
        (
            lambda: ops.attention(zeros(1, 4, 4), zeros(1, 3, 4), zeros(1, 3, 4), heads=2),
            "attention: expected query (B, T, 2 D), key and value (B, S, G D) with G dividing 2 and T <= S > 0, "
            "received (1, 4, 4), (1, 3, 4), (1, 3, 4)",
        ),
        (
            lambda: ops.attention(*[zeros(1, 4, 5)] * 3, heads=2),
            "attention: expected query (B, T, 2 D), key and value (B, S, G D) with G dividing 2 and T <= S > 0, "
            "received (1, 4, 5), (1, 4, 5), (1, 4, 5)",
        ),
        (
            lambda: ops.attention(*[zeros(1, 4, 4)] * 3, heads=2, window=0),
            "attention: expected a window of at least 1 position, received 0",
        ),
        (
            lambda: ops.rotary(zeros(2, 5, 8), **angles),
            "rotary: angles (5, 3) need x (..., 5, a multiple of 6), received (2, 5, 8)",
        ),
        (
            lambda: ops.rotary(zeros(2, 4, 6), **angles),
            "rotary: angles (5, 3) need x (..., 5, a multiple of 6), received (2, 4, 6)",
        ),
        (
            lambda: ops.rotary(zeros(2, 5, 6), zeros(3), **angles),
            "rotary: angles (5, 3) need a gain (6,), received (3,)",
        ),
        (
            lambda: ops.swiglu(zeros(2, 3), zeros(3)),
            "swiglu: expected gate and up of one shape, received (2, 3) and (3,)",
        ),
        (
            lambda: ops.cross_entropy(zeros(2, 3, 5), zeros(2, 4).astype(int)),
            "cross_entropy: logits (2, 3, 5) need targets (2, 3), received (2, 4)",
        ),
        (lambda: ops.split(zeros(2, 5), [2, 2], axis=-1), "split: expected sizes that sum to 5, received [2, 2]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_what_came(call: Callable[[], Any], message: str):
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        call()
