"""DataParallel against one thread: the same loss and gradient to rounding, the same bits from run to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.autograd import Operation, reference_ops, watched_ops
from tinygrad_chat.parallel import DataParallel, make_data_parallel
from tinygrad_chat.seeds import rng

V, B, T = 11, 5, 6
tokens, targets = np.random.default_rng(0).integers(V, size=(2, B, T))


def make_gpt(**options: Any) -> GPT:
    return GPT(V, ModelOptions(**{"layers": 2, "heads": 2, "width": 8, "context": T, **options}), dtype=np.float64)


def gradient_of_whole(model: GPT, **options: Any) -> tuple[float, np.ndarray]:
    model.parameters().zero_gradient()
    loss = model.loss(tokens, targets, **options)
    loss.backward()
    return loss.item(), model.parameters().gradient.copy()


def gradient_by_threads(model: GPT, threads: int, **options: Any) -> tuple[float, np.ndarray]:
    model.parameters().zero_gradient()
    loss = DataParallel(model, threads).gradient(tokens, targets, **options)
    return loss, model.parameters().gradient.copy()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("threads", [1, 2, 3, 5, 9])
def test_shards_give_what_the_whole_batch_gives(threads, dropout):
    model = make_gpt(dropout=dropout)
    loss, gradient = gradient_of_whole(model, random=rng(1, "dropout", 0))
    found = gradient_by_threads(model, threads, random=rng(1, "dropout", 0))
    assert found[0] == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(found[1], gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())


def test_gradient_is_added_to_what_is_there():
    model = make_gpt()
    _, once = gradient_by_threads(model, 2)
    DataParallel(model, 2).gradient(tokens, targets)
    np.testing.assert_allclose(model.parameters().gradient, 2 * once, rtol=1e-12)


def test_a_later_batch_has_a_gradient_of_its_own():
    model = make_gpt()
    shared, found = DataParallel(model, 3), []
    for _ in range(2):
        model.parameters().zero_gradient()
        shared.gradient(tokens, targets)
        found.append(model.parameters().gradient.copy())
    np.testing.assert_array_equal(*found)


def test_the_same_number_of_threads_gives_the_same_bits():
    model = make_gpt(dropout=0.3)
    runs = [gradient_by_threads(model, 3, random=rng(1, "dropout", 7)) for _ in range(5)]
    for loss, gradient in runs:
        assert loss == runs[0][0]
        np.testing.assert_array_equal(gradient, runs[0][1])


def test_reference_ops_and_watchers_reach_every_thread():
    model, seen = make_gpt(), []

    def watch(operation: Operation, inputs: Any, options: Any) -> Any:
        if operation.name == "cross_entropy":
            seen.append(operation)
        return lambda out, rule: rule

    with reference_ops(), watched_ops(watch):
        _, by_reference = gradient_by_threads(model, 3)
    assert len(seen) == 3
    _, by_kernels = gradient_by_threads(model, 3)
    assert np.any(by_reference != by_kernels)  # to rounding, which shows that both were run
    np.testing.assert_allclose(by_kernels, by_reference, rtol=0, atol=1e-12)


def test_shards_are_made_only_where_they_pay():
    large = GPT(V, ModelOptions(width=128, context=64))
    assert make_data_parallel(large, 2, rows=12) is not None
    assert make_data_parallel(large, 1, rows=12) is None
    assert make_data_parallel(large, 2, rows=1) is None
    assert make_data_parallel(make_gpt(), 2, rows=12) is None


@pytest.mark.parametrize("threads", [1, 2, 9])
def test_threads_find_the_losses_of_tokens_that_the_model_finds(threads):
    model = make_gpt()
    masked = np.where(targets > 8, -1, targets)
    found = DataParallel(model, threads).token_losses(tokens, masked)
    np.testing.assert_allclose(found, model.token_losses(tokens, masked), rtol=1e-12)
