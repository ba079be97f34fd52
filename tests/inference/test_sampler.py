"""Choosing a token: what each option keeps, and that draws follow the probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinygrad_chat.errors import ConfigError, DivergedError
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.processors import forbid, penalize
from tinygrad_chat.inference.sampler import NO_TOKEN, draw_tokens, probabilities


def draw_token(x: np.ndarray, uniform: float, options: GenerationOptions) -> int:
    return int(draw_tokens(x[None], [uniform], options)[0])


logits = arrays(np.float32, st.integers(1, 12), elements=st.floats(-30, 30, width=32))


@given(logits, st.floats(0.1, 10))
def test_without_limits_it_is_the_softmax_of_logits_over_temperature(x, temperature):
    scaled = x.astype(np.float64) / temperature
    softmax = np.exp(scaled - scaled.max())
    np.testing.assert_allclose(probabilities(x, temperature=temperature), softmax / softmax.sum(), atol=1e-12)


@given(logits, st.integers(1, 20))
def test_top_k_keeps_the_k_likeliest_in_proportion(x, k):
    full, kept = probabilities(x), probabilities(x, top_k=k)
    assert np.count_nonzero(kept) <= k
    assert kept.sum() == pytest.approx(1)
    inside = kept > 0
    assert full[inside].min() >= full[~inside].max(initial=0)
    np.testing.assert_allclose(kept[inside], full[inside] / full[inside].sum(), rtol=1e-9)


@given(logits, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_likeliest_that_reach_p(x, p):
    full, kept = probabilities(x), probabilities(x, top_p=p)
    inside = np.sort(full[kept > 0])[::-1]
    assert inside.sum() >= p - 1e-9
    assert inside[:-1].sum() < p + 1e-9
    assert kept.sum() == pytest.approx(1)


@given(logits, st.floats(0.01, 1))
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(x, part):
    full, kept = probabilities(x), probabilities(x, min_p=part)
    inside = kept > 0
    assert full[inside].min() >= part * full.max() * (1 - 1e-12)
    assert full[~inside].max(initial=0) <= part * full.max() * (1 + 1e-12)
    np.testing.assert_allclose(kept[inside], full[inside] / full[inside].sum(), rtol=1e-9)


@given(logits, st.floats(1.01, 10), st.sets(st.integers(0, 11)))
def test_a_penalty_for_repetition_makes_tokens_that_were_seen_less_likely_and_no_others(x, penalty, seen):
    seen = {token for token in seen if token < len(x)}
    changed = penalize(x, seen, penalty)
    for token, (before, after) in enumerate(zip(x.tolist(), changed.tolist(), strict=True)):
        expected = before if token not in seen else before / penalty if before > 0 else before * penalty
        assert after == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(probabilities(x, repetition_penalty=penalty, seen=seen), probabilities(changed))


def test_what_is_forbidden_is_never_drawn_and_the_logits_stay_as_they_were():
    x = np.array([0.0, 9.0, 1.0])
    assert probabilities(forbid(x, [1]))[1] == 0
    assert x.tolist() == [0, 9, 1]
    assert forbid(x, []) is x


def test_options_work_in_the_order_that_is_stated():
    x = np.log([0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(probabilities(x, top_k=2, top_p=0.5), [1, 0, 0, 0])  # 0.4 / 0.7 > 0.5
    np.testing.assert_allclose(probabilities(x, top_k=2, min_p=0.7), [4 / 7, 3 / 7, 0, 0])  # 3 / 4 > 0.7
    np.testing.assert_allclose(probabilities(x, temperature=0.5, min_p=0.5), [16 / 25, 9 / 25, 0, 0])  # 9 / 16 > 0.5


def test_top_k_of_one_takes_the_likeliest_and_of_equals_the_first():
    options = GenerationOptions(top_k=1)
    assert draw_token(np.array([0.0, 3.0, 1.0]), 0.999, options) == 1
    assert draw_token(np.zeros(5), 0.999, options) == 0


def test_extreme_logits_and_temperatures_stay_numbers():
    x = np.array([1e4, -1e4, 0.0], np.float32)
    assert probabilities(x, temperature=1e-3).tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(probabilities(x, temperature=1e9), 1 / 3, atol=1e-4)


@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.floats(-30, 30, width=32)),
    st.integers(0, 9),
    st.sampled_from(
        [
            {},
            {"temperature": 0.0},
            {"top_k": 2, "top_p": 0.7},
            {"min_p": 0.2},
            {"repetition_penalty": 2.0, "top_p": 0.5},
        ]
    ),
)
def test_rows_that_are_drawn_at_once_are_drawn_as_each_alone(x, seed, choice):
    random, options = np.random.default_rng(seed), GenerationOptions(**choice)
    seen = [set(random.integers(x.shape[1], size=2).tolist()) for _ in x]
    uniform = random.random(len(x))
    together = draw_tokens(x, uniform, options, seen)
    alone = [
        draw_tokens(x[row : row + 1], uniform[row : row + 1], options, seen[row : row + 1])[0] for row in range(len(x))
    ]
    assert together.tolist() == alone
    for token, row, each, already in zip(together, x, uniform, seen, strict=True):
        before = np.cumsum(probabilities(row, **{"temperature": 0.8, **choice}, seen=already))
        assert before[token - 1] * (token > 0) <= each * before[-1] < before[token]


def test_min_p_compares_with_the_likeliest_of_the_same_row():
    x, options = np.log([[0.98, 0.01, 0.01], [0.5, 0.4, 0.1]]), GenerationOptions(top_k=2, min_p=0.7)
    assert draw_tokens(x, [0.99, 0.99], options).tolist() == [0, 1]


def test_draws_follow_the_probabilities():
    x, options = np.log([0.5, 0.3, 0.2]), GenerationOptions(temperature=1)
    drawn = np.bincount([draw_token(x, each / 1000, options) for each in range(1000)], minlength=3) / 1000
    np.testing.assert_allclose(drawn, [0.5, 0.3, 0.2], atol=0.002)


def test_at_no_temperature_the_likeliest_is_certain_and_of_equals_the_first():
    assert probabilities(np.array([1.0, 3.0, 3.0, 2.0]), temperature=0).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "--top-k: expected at least 1, received 0"),
        ({"top_k": -1}, "--top-k: expected at least 1, received -1"),
        ({"top_k": 2.5}, "--top-k: expected int, received 2.5"),
        ({"top_p": 0.0}, "--top-p: expected more than 0, received 0.0"),
        ({"top_p": 1.5}, "--top-p: expected at most 1, received 1.5"),
        ({"min_p": 0.0}, "--min-p: expected more than 0, received 0.0"),
        ({"repetition_penalty": 0.5}, "--repetition-penalty: expected at least 1, received 0.5"),
        ({"temperature": -1.0}, "--temperature: expected at least 0, received -1.0"),
        ({"temperature": float("nan")}, "--temperature: expected a finite number, received nan"),
        ({"temperature": float("inf")}, "--temperature: expected a finite number, received inf"),
    ],
)
def test_options_out_of_range_are_refused_as_the_flags_are(options, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        probabilities(np.log([0.5, 0.3, 0.2]), **options)
    with pytest.raises(ConfigError, match=f"^{message}$"):
        GenerationOptions(**options)


def test_options_may_be_numbers_of_numpy():
    x = np.log([0.5, 0.3, 0.2])
    options: Any = {"temperature": np.float32(1), "top_k": np.int64(2), "top_p": np.float64(1)}
    np.testing.assert_allclose(probabilities(x, **options), [0.625, 0.375, 0])


@pytest.mark.parametrize("unfit", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error_and_no_token(unfit: float):
    with pytest.raises(DivergedError, match="the model's logits are NaN or infinite; use an earlier checkpoint"):
        probabilities(np.array([0.0, unfit, 1.0]))
    with np.errstate(all="ignore"):
        assert draw_token(np.array([0.0, unfit, 1.0]), 0.5, GenerationOptions()) == NO_TOKEN
