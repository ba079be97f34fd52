"""Rotary pairs slowed down: which, by how much, and what that does to a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.models.rotary_scaling import pair_scales

LLAMA = {"base": 500_000.0, "factor": 8.0, "context": 8192, "slow": 1.0}  # as in Llama 3.1


def test_pairs_that_turn_often_are_left_alone_and_those_that_do_not_get_round_are_slowed_down_in_full():
    for scaling, fast in (("llama3", 4.0), ("yarn", 32.0)):
        scales = pair_scales(scaling, 64, **LLAMA, fast=fast)
        turns = [8192 / (2 * math.pi) * 500_000.0 ** (-pair / 32) for pair in range(32)]
        for scale, times in zip(scales, turns, strict=True):
            assert (scale == 1) == (times > fast), (scaling, times)
            assert scale == 1 / 8 if times < 0.8 else scale >= 1 / 8
        assert scales == sorted(scales, reverse=True)


def test_those_between_are_slowed_down_as_transformers_does():
    """tests/interchange/test_families_parity.py compares every pair, where transformers is installed."""
    llama3, yarn = (pair_scales(scaling, 64, **LLAMA, fast=fast) for scaling, fast in (("llama3", 4.0), ("yarn", 32.0)))
    np.testing.assert_allclose(llama3[14:19], [1, 0.6437, 0.3711, 0.1902, 0.125], atol=1e-4)
    np.testing.assert_allclose(yarn[9:13], [1, 0.9028, 0.8056, 0.7083], atol=1e-4)


def test_all_pairs_are_slowed_down_alike_or_none():
    assert pair_scales("linear", 6, **LLAMA, fast=4.0) == [1 / 8] * 3
    assert pair_scales("none", 6, **LLAMA, fast=4.0) == [1] * 3


def test_the_original_context_follows_from_the_factor_and_yarn_sharpens_attention():
    options = ModelOptions(context=100, positions="rotary", rotary_scaling="yarn", rotary_factor=4.0)
    assert options.original_context == 25
    assert options.attention_factor == pytest.approx(1 + math.log(4) / 10)
    assert ModelOptions(context=100, rotary_factor=4.0).attention_factor == 1


def test_positions_of_a_linearly_scaled_model_are_those_of_a_shorter_text():
    """Every second position of a context twice as long is one that was learned."""
    shape: dict[str, Any] = {"layers": 1, "heads": 2, "width": 16, "positions": "rotary"}
    short = GPT(5, ModelOptions(**shape, context=4))
    long = GPT(5, ModelOptions(**shape, context=8, rotary_scaling="linear", rotary_factor=2.0))
    for ours, learned in zip(long._angles, short._angles, strict=True):
        np.testing.assert_allclose(ours[::2], learned, rtol=1e-6)
