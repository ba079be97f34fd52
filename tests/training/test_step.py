"""One training step: what it does, what guards it, and that nothing of it is burned in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.models.parameter_table import parameter_roles
from tinygrad_chat.nn import Parameters
from tinygrad_chat.optim import SGD, AdamW, Muon, Optimizer, adamw_groups, clip_gradient
from tinygrad_chat.training import step as module
from tinygrad_chat.training.step import TrainStep, accumulate_gradient

OPTIONS = ModelOptions(layers=1, heads=2, width=8, context=6)
V = 7
BATCH = np.random.default_rng(0).integers(0, V, (4, 6)), np.random.default_rng(1).integers(0, V, (4, 6))


def muon(parameters: Parameters) -> Muon:
    groups = adamw_groups(parameter_roles(OPTIONS, V), lr=0.02, embedding_lr=0.3, head_lr=0.008, scalar_lr=0.5)
    return Muon(parameters, groups, momentum=lambda step: 0.9, weight_decay=lambda step: 0.1 * step)


every_optimizer = pytest.mark.parametrize("optimizer", [AdamW, SGD, muon])


def build(optimizer: Any, **options: Any) -> TrainStep:
    model = GPT(V, OPTIONS)
    return TrainStep(model, optimizer(model.parameters()), lambda step: 0.01 / (step + 1), **options)


def state_of(step: TrainStep) -> dict[str, np.ndarray]:
    return {**step.model.parameters().state(), **step.optimizer.state()}


def expect_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@every_optimizer
def test_a_step_is_its_parts_in_turn(optimizer: Any):
    step, by_hand = build(optimizer, clip=0.1), build(optimizer)
    for position in range(3):
        result = step(BATCH, position)
        loss = accumulate_gradient(by_hand.model, BATCH, micro_batches=1)
        norm = clip_gradient(by_hand.model.parameters(), 0.1)
        by_hand.optimizer.step(0.01 / (position + 1), position)
        assert (result.loss, result.grad_norm, result.lr) == (loss, norm, 0.01 / (position + 1))
    expect_equal(state_of(step), state_of(by_hand))


@every_optimizer
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_loss_or_gradient_is_not_finite_nothing_moves(
    optimizer: Any, where: str, value: float, monkeypatch: pytest.MonkeyPatch
):
    step = build(optimizer)
    step(BATCH, 0)
    before = state_of(step)

    def spoiled(model: Any, batch: Any, **options: Any) -> Any:
        loss = accumulate_gradient(model, batch, **options)
        if where == "gradient":
            model.parameters().gradient[3] = value
        return loss * value if where == "loss" else loss

    monkeypatch.setattr(module, "accumulate_gradient", spoiled)
    result = step(BATCH, 1)
    assert not math.isfinite(result.loss + result.grad_norm)
    expect_equal(state_of(step), before)


@every_optimizer
def test_a_skipped_step_moves_nothing_and_says_so(optimizer: Any):
    step, asked = build(optimizer), []
    before = state_of(step)
    result = step(BATCH, 0, skip=lambda loss: asked.append(loss) or True)
    assert result.skipped
    assert asked == [result.loss]
    expect_equal(state_of(step), before)
    assert not step(BATCH, 0, skip=lambda loss: False).skipped


@every_optimizer
def test_an_update_reads_what_changes_from_memory(optimizer: Any):
    """Prepared for one step and then for another, it is the other that counts: so a captured update can be replayed."""
    twice, once = build(optimizer), build(optimizer)
    for step in (twice, once):
        step.gradient(BATCH)
    steps_taken: Optimizer = twice.optimizer
    steps_taken.prepare(123.0, 9)
    twice.optimizer.load(once.optimizer.state())
    for step in (twice, once):
        step.optimizer.prepare(0.01, 2)
        step.optimizer.update()
    expect_equal(state_of(twice), state_of(once))
