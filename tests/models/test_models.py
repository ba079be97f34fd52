"""What every model of the table must do. A new line in MODELS is tested by this file as it stands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.backend import Compute
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.registry import MODELS, build_model

V, B, T = 5, 2, 8
OPTIONS = ModelOptions(layers=1, heads=2, width=16, context=T)

# A cycle, so that even a model of one token back can know what comes next.
cycle = np.arange(B * T + 1) % V
tokens, targets = cycle[:-1].reshape(B, T), cycle[1:].reshape(B, T)

every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, seed: int = 1) -> Any:
    return build_model(name, V, OPTIONS, compute=Compute.choose("numpy"), random=np.random.default_rng(seed))


@every_model
def test_model_knows_its_vocabulary_and_context(name):
    model = build(name)
    assert (model.vocabulary, model.context) == (V, T)


@every_model
def test_new_model_guesses_about_evenly(name):
    loss = build(name).loss(tokens, targets)
    assert (loss.shape, loss.dtype) == ((), np.float32)
    assert loss.item() == pytest.approx(math.log(V), rel=0.05)


@every_model
def test_model_overfits_one_batch(name):
    model = build(name)
    parameters = model.parameters()
    for _ in range(200):
        parameters.zero_gradient()
        model.loss(tokens, targets).backward()
        parameters.data -= 1.0 * parameters.gradient
    assert model.loss(tokens, targets).item() < 0.1
    np.testing.assert_array_equal(model.next_token_logits(tokens).argmax(axis=-1), targets[:, -1])


@every_model
def test_next_token_logits_are_arrays_with_and_without_a_cache(name):
    model = build(name)
    without = model.next_token_logits(tokens)
    assert (type(without), without.shape) == (np.ndarray, (B, V))
    cache = model.new_cache(B)
    one_by_one = [model.next_token_logits(tokens[:, t : t + 1], cache) for t in range(T)]
    np.testing.assert_allclose(one_by_one[-1], without, rtol=1e-4, atol=1e-6)


@every_model
def test_loss_leaves_parameters_alone_and_is_the_same_each_time(name):
    model = build(name)
    before = model.parameters().data.copy()
    assert model.loss(tokens, targets).item() == model.loss(tokens, targets).item()
    np.testing.assert_array_equal(model.parameters().data, before)


@every_model
def test_loaded_state_makes_another_model_the_same(name):
    model, other = build(name, seed=1), build(name, seed=2)
    assert np.any(model.next_token_logits(tokens) != other.next_token_logits(tokens))
    other.parameters().load(model.parameters().state())
    np.testing.assert_array_equal(model.next_token_logits(tokens), other.next_token_logits(tokens))
