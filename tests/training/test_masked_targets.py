"""Targets that do not count, lying as unequally as can be: micro-batches and threads give what the batch gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.errors import DataError, ShapeError
from tinygrad_chat.models.scalar import ScalarModel
from tinygrad_chat.ops import cross_entropy
from tinygrad_chat.parallel import DataParallel
from tinygrad_chat.seeds import rng
from tinygrad_chat.training.evaluation import evaluate_batches
from tinygrad_chat.training.step import accumulate_gradient

V, B, T = 7, 6, 4
OPTIONS = ModelOptions(layers=1, heads=2, width=8, context=T)
tokens, targets = np.random.default_rng(0).integers(V, size=(2, B, T))
targets[0, 1:] = -1  # a row with one target that counts
targets[2:4] = -1  # micro-batches with none at all
targets[4, ::2] = -1


def build(engine: Any, **options: Any) -> Any:
    exactly: dict[str, Any] = {"dtype": np.float64} if engine is GPT else {}  # the other computes with Python's floats
    return engine(V, ModelOptions(**{**vars(OPTIONS), **options}), **exactly)


def of_whole(model: Any, **options: Any) -> tuple[float, np.ndarray]:
    """The loss and the gradient of the batch in one piece."""
    model.parameters().zero_gradient()
    loss = model.loss(tokens, targets, **options)
    loss.backward()
    return loss.item(), model.parameters().gradient.copy()


def expect_same(model: Any, found: float, whole: tuple[float, np.ndarray]) -> None:
    assert float(found) == pytest.approx(whole[0], rel=1e-12)
    np.testing.assert_allclose(model.parameters().gradient, whole[1], rtol=0, atol=1e-12 * np.abs(whole[1]).max())


@pytest.mark.parametrize("micro_batches", range(1, 7))
@pytest.mark.parametrize("engine", [GPT, ScalarModel])
def test_micro_batches_give_what_the_whole_batch_gives(engine: Any, micro_batches: int):
    model = build(engine)
    whole = of_whole(model)
    expect_same(model, accumulate_gradient(model, (tokens, targets), micro_batches=micro_batches), whole)


@pytest.mark.parametrize("threads", range(1, 5))
@pytest.mark.parametrize("micro_batches", range(1, 7))
def test_threads_give_what_the_whole_batch_gives_with_dropout_too(threads: int, micro_batches: int):
    model = build(GPT, dropout=0.3)
    whole = of_whole(model, random=rng(1, "dropout", 0))
    random, threads_of = rng(1, "dropout", 0), DataParallel(model, threads)
    expect_same(
        model,
        accumulate_gradient(
            model, (tokens, targets), micro_batches=micro_batches, random=random, data_parallel=threads_of
        ),
        whole,
    )


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("engine", [GPT, ScalarModel])
def test_weights_multiply_the_loss_of_each_target_in_micro_batches_and_threads_too(engine: Any, micro_batches: int):
    model = build(engine)
    weights = np.random.default_rng(1).normal(size=(B, T))
    whole = of_whole(model, weights=weights)
    assert whole[0] == pytest.approx((weights * model.token_losses(tokens, targets)).sum() / (targets != -1).sum())
    for threads in (None, DataParallel(model, 3)) if engine is GPT else (None,):
        batch = tokens, targets, weights
        expect_same(model, accumulate_gradient(model, batch, micro_batches=micro_batches, data_parallel=threads), whole)


def test_both_engines_weigh_alike():
    weights = np.random.default_rng(1).normal(size=(B, T))
    found = [of_whole(build(engine), weights=weights) for engine in (GPT, ScalarModel)]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-9)


def test_weights_are_one_a_target():
    with pytest.raises(ShapeError, match=r"targets \(2,\) need weights of that shape, received \(3,\)"):
        cross_entropy(np.zeros((2, 3)), np.zeros(2, int), weights=np.ones(3))


@pytest.mark.parametrize("engine", [GPT, ScalarModel])
def test_the_loss_is_the_mean_over_the_targets_that_count(engine: Any):
    model = build(engine)
    losses = model.token_losses(tokens, targets)
    assert not losses[targets == -1].any()
    assert of_whole(model)[0] == pytest.approx(losses.sum() / (targets != -1).sum(), rel=1e-12)


@pytest.mark.parametrize("engine", [GPT, ScalarModel])
def test_without_any_target_that_counts_loss_and_gradient_are_0(engine: Any):
    model = build(engine)
    assert accumulate_gradient(model, (tokens, np.full((B, T), -1)), micro_batches=2) == 0
    assert not model.parameters().gradient.any()


def test_evaluation_counts_those_alone_and_only_their_bytes():
    model, sizes = build(GPT), np.array([1, 2, 3, 4, 5, 6, 0])
    counted = targets != -1
    losses = model.token_losses(tokens, targets)
    found = evaluate_batches(model, [(tokens[:1], targets[:1]), (tokens[1:], targets[1:])], sizes)
    size = sizes[targets[counted]].sum()
    of_text = losses[counted & (targets != 6)].sum()
    assert (found.tokens, found.bytes) == (counted.sum(), size)
    assert found.loss == pytest.approx(losses.sum() / counted.sum(), rel=1e-12)
    assert found.perplexity == pytest.approx(np.exp(found.loss), rel=1e-12)
    assert found.bits_per_byte == pytest.approx(of_text / np.log(2) / size, rel=1e-12)


def test_evaluation_of_no_target_that_counts_is_refused():
    with pytest.raises(DataError, match="expected at least one target that counts, received none"):
        evaluate_batches(build(GPT), [(tokens, np.full((B, T), -1))], np.ones(V, int))


def test_a_token_count_of_0_is_refused():
    with pytest.raises(ShapeError, match="expected a token_count of at least 1, received 0"):
        cross_entropy(np.zeros((2, 3)), np.zeros(2, int), token_count=0)
