"""Evaluation: the numbers are what their names say, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.models.table_model import table_model
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.training.evaluation import evaluate


def test_a_uniform_model_costs_log_v_and_its_bits_are_spread_over_the_true_bytes():
    model = table_model(np.zeros((8, 8)), context=4)
    tokens = np.array([7, 0, 1, 2, 3, 4, 5, 6, 0, 1])
    bytes_per_token = np.array([1, 2, 3, 1, 1, 1, 4, 0])
    evaluation = evaluate(model, tokens, bytes_per_token, batch_size=2)
    size = int(bytes_per_token[tokens[1:]].sum())
    assert evaluation.loss == pytest.approx(math.log(8), rel=1e-6)
    assert evaluation.perplexity == pytest.approx(8, rel=1e-5)
    assert (evaluation.tokens, evaluation.bytes) == (9, size)
    assert evaluation.bits_per_byte == pytest.approx(9 * 3 / size, rel=1e-6)  # log2(8) = 3 bits a token


def test_what_stands_for_no_bytes_costs_loss_and_no_bits_per_byte():
    """A text of many documents, by hand: BOS, token 2, is far less likely than the others."""
    model = table_model(np.log([[0.5, 0.49, 0.01]] * 3), context=4)
    tokens = np.array([2, 0, 1, 2, 1, 0, 2, 0])
    evaluation = evaluate(model, tokens, np.array([1, 3, 0]), batch_size=2)
    nats = -np.log([0.5, 0.49, 0.49, 0.5, 0.5])
    assert evaluation.bytes == 9
    assert evaluation.bits_per_byte == pytest.approx(nats.sum() / np.log(2) / 9, rel=1e-5)
    assert evaluation.loss == pytest.approx((nats.sum() - 2 * np.log(0.01)) / 7, rel=1e-5)


@pytest.mark.parametrize("count", [9, 10, 16, 17, 31])
def test_the_loss_is_the_mean_over_every_token_whatever_the_batch_size(count):
    model = GPT(11, ModelOptions(layers=1, heads=2, width=8, context=5), dtype=np.float64)
    tokens = np.random.default_rng(0).integers(0, 11, count)
    one_by_one = []
    for position in range(1, count):
        start = (position - 1) // 5 * 5  # its window of 5
        logits = model.logits(tokens[None, start:position]).data[0, -1]
        one_by_one.append(np.log(np.exp(logits).sum()) - logits[tokens[position]])
    for batch_size in (1, 2, 100):
        loss = evaluate(model, tokens, np.ones(11, int), batch_size=batch_size).loss
        assert loss == pytest.approx(np.mean(one_by_one), rel=1e-12)


def test_a_hopeless_models_perplexity_stays_a_number():
    model = table_model([[0, 0], [2000, 0]], context=4)
    assert evaluate(model, np.array([1, 1, 1, 1, 1]), np.ones(2, int), batch_size=1).perplexity == math.exp(700)
