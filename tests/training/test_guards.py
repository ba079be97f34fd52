"""What guards a run: losses that are NaN or infinite, spikes, memory that grows. Each on real runs."""

from __future__ import annotations

import dataclasses
import json
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import ops
from tinygrad_chat.backend import get_backend
from tinygrad_chat.errors import DivergedError, MemoryGrowthError
from tinygrad_chat.machine.memory import memory_held
from tinygrad_chat.runs import recent_losses
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.recent_losses import RecentLosses
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.text.batches import Batch
from tinygrad_chat.training import batches, loop, step
from tinygrad_chat.training.evaluation import evaluate
from tinygrad_chat.training.events import Ended, Event, Logged, RolledBack, Stepped
from tinygrad_chat.training.guards import rollback
from tinygrad_chat.training.guards.memory import MemoryGuard
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]


def finish(run: Run) -> list[Event]:
    return list(train(run))


def poisoned(run: Run, name: str, value: float, *, at_step: int, stops: bool = False) -> None:
    """Train, with a weight overwritten after `at_step` updates, and perhaps with a stop there."""
    for event in train(run, should_stop=lambda: stops and run.progress.step >= at_step):
        if getattr(event, "step", None) == at_step and isinstance(event, Stepped):
            run.model.parameters()[name].data[0] = value


# --- the first op and layer that gave NaN or infinity


@pytest.mark.parametrize("stops", [False, True])
def test_a_weight_that_is_no_number_is_named(start: Start, stops: bool):
    with pytest.raises(
        DivergedError, match=r"as the last update left NaN or infinity in blocks.0.attention.query.weight"
    ):
        poisoned(start(), "blocks.0.attention.query.weight", np.nan, at_step=2, stops=stops)


def faulty(operation: Any, *, forward: bool) -> Callable[..., Any]:
    """An op whose result, or whose gradient, has one element that is NaN."""

    def compute(*inputs: Any, **options: Any) -> Any:
        out, rule = operation.reference(*inputs, **options)
        if forward:
            out = np.array(out)
            out.flat[-1] = np.inf
            return out, rule

        def backward(d_out: Any) -> Any:
            gradients = rule(d_out)
            gradients[0].flat[-1] = np.nan
            return gradients

        return out, backward

    return compute


@pytest.mark.parametrize(
    ("operation", "place"),
    [
        (ops.gelu, "gelu after blocks.1.feed_forward.expand"),
        (ops.attention, "attention after blocks.1.attention.value"),
        (ops.layernorm, "layernorm of final_norm"),
        (ops.cross_entropy, "cross_entropy after token_embedding"),  # the head, whose weight is tied
    ],
    ids=str,
)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_op_that_gives_no_number_is_named_with_its_layer(
    start: Start, monkeypatch: pytest.MonkeyPatch, operation: Any, place: str, direction: str
):
    run = start(layers=2, eval_every=100)
    kernels: Any = run.model.parameters().compute.kernel_table

    def train_until_it_fails() -> None:
        for event in train(run):
            if isinstance(event, Stepped) and event.step == 3:
                monkeypatch.setitem(kernels, operation, faulty(operation, forward=forward))

    forward = direction == "forward"
    if forward:  # the sweep meets the last layer first, the forward pass the first
        place = place.replace("blocks.1", "blocks.0").replace("final_norm", "blocks.0.attention_norm")
    what = "result of" if forward else "gradient from"
    with pytest.raises(DivergedError, match=f"^step 3: the loss is .*, first in the {what} {place}; lower --lr"):
        train_until_it_fails()
    assert [path.name for path in find_checkpoints(run.folder.checkpoints)] == ["step-000000"]
    assert json.loads(run.folder.outcome.read_bytes())["outcome"] == "failed"


def test_a_gradient_too_long_for_a_number_names_the_largest(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start(eval_every=100)
    original = step.accumulate_gradient

    def long(model: Any, batch: Batch, **options: Any) -> float:
        loss = original(model, batch, **options)
        model.parameters()["blocks.0.attention.key.weight"].grad[...] = 1e30
        return loss

    monkeypatch.setattr(step, "accumulate_gradient", long)
    with pytest.raises(DivergedError, match=r"gradient inf, which overflows though .* blocks.0.attention.key"):
        finish(run)


def test_a_validation_loss_that_is_no_number_stops_the_run_and_takes_its_checkpoint_away(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    run = start()
    monkeypatch.setattr(loop, "evaluate", lambda *a, **k: _spoiled(evaluate(*a, **k), run.progress.step == 6))
    with pytest.raises(DivergedError, match="step 6: the validation loss is nan"):
        finish(run)
    assert [path.name for path in find_checkpoints(run.folder.checkpoints)] == ["step-000000", "step-000003"]


def _spoiled(evaluation: Any, spoil: bool) -> Any:
    return dataclasses.replace(evaluation, loss=np.nan) if spoil else evaluation


# --- going back


@pytest.fixture
def bad_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run, int], None]:
    """Let one batch of a run, by its number, give NaN."""

    def spoil(run: Run, number: int) -> None:
        original, bad = step.accumulate_gradient, run.batch(number)[0]
        monkeypatch.setattr(
            step,
            "accumulate_gradient",
            lambda model, batch, **options: (
                np.nan if np.array_equal(batch[0], bad) else original(model, batch, **options)
            ),
        )

    return spoil


def test_a_rollback_goes_on_from_the_last_checkpoint_with_other_batches(start: Start, bad_batch: Any):
    run = start(on_nan="rollback", steps=9)
    bad_batch(run, 5)
    events = finish(run)
    assert [(event.failed_step, event.step) for event in events if isinstance(event, RolledBack)] == [(5, 3)]
    assert events[-1] == Ended(9, interrupted=False)
    assert run.progress.skipped_batches == 3  # step 3 takes batch 6, the first after the bad one
    records = run.folder.records()
    assert [record["step"] for record in records] == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]
    assert records[3].keys() == {"step", "rolled_back_from", "reason"}
    assert records[3]["rolled_back_from"] == 5


@pytest.mark.profile("ci")
@pytest.mark.parametrize("stop", [3, 4, 6, 7])
def test_a_run_that_rolled_back_resumes_as_if_it_never_had_stopped(start: Start, bad_batch: Any, stop: int):
    whole, stopped = start("whole", on_nan="rollback", steps=9), start("stopped", on_nan="rollback", steps=9)
    bad_batch(whole, 5)
    finish(whole)
    for event in train(
        stopped, should_stop=lambda: stopped.progress.skipped_batches > 0 and stopped.progress.step >= stop
    ):
        assert event
    resumed = resume_run(stopped.folder.path, {})
    finish(resumed)
    assert resumed.folder.log.read_bytes() == whole.folder.log.read_bytes()
    np.testing.assert_array_equal(resumed.model.parameters().data, whole.model.parameters().data)


def test_a_run_that_cannot_get_past_its_failure_stops(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start(on_nan="rollback", eval_every=2)
    original = step.accumulate_gradient
    monkeypatch.setattr(
        step, "accumulate_gradient", lambda *a, **k: np.nan if run.progress.step == 3 else original(*a, **k)
    )
    rolled_back: list[int] = []
    with pytest.raises(DivergedError, match="step 3: the loss is nan"):
        rolled_back.extend(event.step for event in train(run) if isinstance(event, RolledBack))
    assert rolled_back == [2] * rollback.MAX_ROLLBACKS


@pytest.mark.parametrize("every", [1, 2, 3])
def test_nor_does_one_whose_failure_has_a_checkpoint_of_its_own(
    start: Start, monkeypatch: pytest.MonkeyPatch, every: int
):
    run = start(on_nan="rollback", eval_every=100, checkpoint_every=every, steps=9)
    original = step.accumulate_gradient
    monkeypatch.setattr(
        step, "accumulate_gradient", lambda *a, **k: np.nan if run.progress.step == 6 else original(*a, **k)
    )
    rolled_back: list[int] = []

    def train_until_it_fails() -> None:
        for event in train(run):
            if isinstance(event, RolledBack):
                rolled_back.append(event.step)
                newest = find_checkpoints(run.folder.checkpoints)[-1]  # where a kill right now would go on from
                assert newest.name == f"step-{event.step:06d}-temporary"
                assert [made.failed_step for made in TrainingState.load(newest).progress.rollbacks] == [6] * len(
                    rolled_back
                )

    with pytest.raises(DivergedError, match="step 6: the loss is nan"):
        train_until_it_fails()
    assert rolled_back == [6, 6 - every, 6 - every]


def test_nor_does_one_whose_validation_loss_is_no_number(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start(on_nan="rollback")
    monkeypatch.setattr(loop, "evaluate", lambda *a, **k: _spoiled(evaluate(*a, **k), run.progress.step == 6))
    rolled_back: list[int] = []
    with pytest.raises(DivergedError, match="step 6: the validation loss is nan"):
        rolled_back.extend(event.step for event in train(run) if isinstance(event, RolledBack))
    assert rolled_back == [3, 3, 3]


def test_a_failure_at_a_checkpoint_s_own_step_goes_on_from_that_checkpoint(start: Start, bad_batch: Any):
    run = start(on_nan="rollback", steps=9, keep_checkpoints=1)
    bad_batch(run, 6)
    events = finish(run)
    assert [(event.failed_step, event.step) for event in events if isinstance(event, RolledBack)] == [(6, 6)]
    assert run.progress.skipped_batches == 1


def test_a_first_batch_without_number_is_passed_over_too(start: Start, bad_batch: Any):
    run = start(on_nan="rollback")
    bad_batch(run, 0)
    assert [event.step for event in finish(run) if isinstance(event, RolledBack)] == [0]
    assert run.progress.skipped_batches == 1


# --- spikes


def test_an_update_from_a_batch_unlike_the_others_is_skipped_and_logged(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recent_losses, "WINDOW", 10)
    run = start(steps=60, eval_every=60, log_every=7, skip_spikes=6.0, lr=0.02)
    original = batches.random_batch

    def noise_at_50(tokens: Any, **options: Any) -> Batch:
        inputs, targets = original(tokens, **options)
        return (inputs, inputs[:, ::-1] * 0 + run.tokenizer.size - 1) if run.progress.step == 50 else (inputs, targets)

    monkeypatch.setattr(batches, "random_batch", noise_at_50)
    weights: dict[int, np.ndarray] = {}
    skipped = []
    for event in train(run):
        if isinstance(event, Logged) and "skipped_spike" in event.record:
            skipped.append(event.record)
        if isinstance(event, Stepped):
            weights[event.step] = run.model.parameters().data.copy()
    assert [record["step"] for record in skipped] == [50]
    assert skipped[0]["skipped_spike"] > 6
    assert skipped[0] in run.folder.records()
    np.testing.assert_array_equal(weights[50], weights[51])
    assert not np.array_equal(weights[51], weights[52])
    assert run.train_step.optimizer.state()["steps"].item() == 59


def test_the_running_mean_and_variance_are_those_of_the_losses_seen():
    losses = np.random.default_rng(0).normal(3, 0.5, recent_losses.WINDOW)
    recent = RecentLosses()
    assert recent.z_score(100.0) == 0
    for loss in losses:
        recent.add(loss)
    assert recent.mean == pytest.approx(losses.mean())
    assert recent.variance == pytest.approx(losses.var())
    assert recent.z_score(5.0) == pytest.approx((5.0 - losses.mean()) / losses.std())


def test_a_lasting_change_of_level_becomes_the_new_level():
    random, recent = np.random.default_rng(0), RecentLosses()
    for level in (1.0, 3.0):
        scores = []
        for loss in random.normal(level, 0.1, 400):
            scores.append(recent.z_score(loss))
            recent.add(loss)
    assert max(scores[:5]) > 10
    assert max(scores[-100:]) < 6


# --- memory


@pytest.mark.profile("ci")
def test_a_leak_ends_the_run_after_its_checkpoint(start: Start, monkeypatch: pytest.MonkeyPatch):
    kept: list[np.ndarray] = []
    monkeypatch.setattr(loop, "evaluate", lambda *a, **k: kept.append(np.ones(50 << 17)) or evaluate(*a, **k))
    run = start(steps=60, eval_every=3, max_memory_growth=0.1)
    with pytest.raises(MemoryGrowthError, match=r"memory has grown from \d+ to \d+ MiB"):
        finish(run)
    assert 6 < run.progress.step < 60
    assert len(kept) < 21
    kept.clear()
    assert json.loads(run.folder.outcome.read_bytes())["outcome"] == "failed"
    assert resume_run(run.folder.path, {}).progress.step > 0


def test_memory_of_a_gpu_is_watched_too():
    guard = MemoryGuard(0.5)
    for device in (1 << 30, 2 << 30, 2 << 30):
        guard.check({"memory": 1 << 30, "device_memory": device})
    with pytest.raises(MemoryGrowthError, match="device memory has grown from 2048 to 4096 MiB"):
        guard.check({"memory": 1 << 30, "device_memory": 4 << 30})


@pytest.mark.profile("ci")
def test_an_array_that_is_kept_shows_in_the_memory_held():
    before = memory_held(get_backend("numpy"))["memory"]
    taken = mmap.mmap(
        -1, 64 << 20, access=mmap.ACCESS_COPY
    )  # not from what earlier tests have freed, which NumPy may use again
    kept = np.frombuffer(taken, np.float64)
    kept[:] = 1
    assert memory_held(get_backend("numpy"))["memory"] - before > 0.3 * kept.nbytes
