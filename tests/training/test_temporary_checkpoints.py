"""Checkpoints for the clock's sake: a kill costs a minute at most, and nothing else depends on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.errors import DivergedError, StorageError
from tinygrad_chat.runs.checkpoint import find_checkpoints, is_temporary, remove_old_checkpoints
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.training import clock, step
from tinygrad_chat.training.clock import CheckpointClock
from tinygrad_chat.training.events import Began, Ended, Event, Saved, Stepped
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let a temporary checkpoint be due after every step, or after none."""
    return lambda always: monkeypatch.setattr(CheckpointClock, "due", lambda self: always)


def events_of(run: Run) -> list[Event]:
    return list(train(run))


def kept_while_it_trains(run: Run) -> list[list[str]]:
    """The names of the checkpoints that stay, after each step."""
    return [
        [path.name for path in find_checkpoints(run.folder.checkpoints, temporary=False)]
        for event in train(run)
        if isinstance(event, Stepped)
    ]


@pytest.mark.parametrize("keep", [1, 2])
def test_they_take_no_place_among_those_that_stay(start: Start, hurried: Any, keep: int):
    settings: dict[str, Any] = {"keep_checkpoints": keep, "eval_every": 4, "checkpoint_every": 3, "steps": 10}
    hurried(False)
    without = kept_while_it_trains(start("without", **settings))
    hurried(True)
    run = start("with", **settings)
    assert kept_while_it_trains(run) == without
    assert not any(map(is_temporary, find_checkpoints(run.folder.checkpoints)))  # none outlives the end


def test_one_that_a_kill_left_beside_the_checkpoint_to_stay_takes_no_place_either(tmp_path: Path):
    for name in ("step-000002", "step-000004", "step-000004-temporary"):
        (tmp_path / name).mkdir()
    remove_old_checkpoints(tmp_path, step=4, keep=2, best_step=None)
    assert [path.name for path in find_checkpoints(tmp_path, temporary=False)] == ["step-000002", "step-000004"]


def test_there_is_one_at_a_time_and_the_one_before_goes_only_when_it_is_whole(
    start: Start, hurried: Any, monkeypatch: pytest.MonkeyPatch
):
    hurried(True)
    run, seen = start(eval_every=5, steps=9), list[list[int]]()
    original = TrainingState.save

    def save(self: TrainingState, *arguments: Any, **options: Any) -> Any:
        seen.append([self.step for self in map(TrainingState.load, find_checkpoints(run.folder.checkpoints))])
        return original(self, *arguments, **options)

    monkeypatch.setattr(TrainingState, "save", save)
    events_of(run)
    assert seen == [[], [0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 5, 6], [0, 5, 7], [0, 5, 8]]


def test_a_killed_run_goes_on_from_there(start: Start, hurried: Any):
    hurried(True)
    run = start(eval_every=100, steps=9)
    for event in train(run):
        if isinstance(event, Began) and (event.step, event.activity) == (7, "saving"):
            break
    assert resume_run(run.folder.path, {}).progress.step == 6


def test_one_that_cannot_be_written_does_not_end_the_run(start: Start, hurried: Any, monkeypatch: pytest.MonkeyPatch):
    hurried(True)
    original = TrainingState.save

    def save(self: TrainingState, *arguments: Any, temporary: bool = False, **options: Any) -> Any:
        if temporary:
            raise StorageError("the disk is full")
        return original(self, *arguments, **options)

    monkeypatch.setattr(TrainingState, "save", save)
    assert events_of(start(steps=9))[-1] == Ended(9, interrupted=False)


def test_one_whose_step_the_changed_settings_ask_for_is_saved_to_stay(start: Start, hurried: Any):
    hurried(True)
    run = start(eval_every=100, steps=9)
    for event in train(run):
        if isinstance(event, Stepped) and event.step == 5:
            break
    resumed = resume_run(run.folder.path, {"checkpoint_every": 4})
    assert resumed.progress.step == 4
    assert next(event for event in train(resumed) if isinstance(event, Saved)).path.is_dir()


def told(run: Run) -> tuple[list[str], bytes, bytes, str]:
    """What a run tells and leaves that is no matter of time, and how it fails."""
    events, failure = list[str](), ""
    try:
        for event in train(run):
            if not isinstance(event, Began):
                shown = dataclasses.replace(event, timing={}) if hasattr(event, "timing") else event
                events.append(str(shown).replace(str(run.folder.path), ""))
    except DivergedError as error:
        failure = str(error)
    return events, run.folder.log.read_bytes(), run.model.parameters().data.tobytes(), failure


@pytest.mark.profile("ci")
@pytest.mark.parametrize("failing", [{5}, {4, 5}, {4, 6, 7}, {1, 2, 3, 4}], ids=str)
def test_a_rollback_goes_where_it_would_go_without_them_and_as_often(
    start: Start, hurried: Any, monkeypatch: pytest.MonkeyPatch, failing: set[int]
):
    original = step.accumulate_gradient
    found = []
    for always in (False, True):
        run = start(f"run {always}", on_nan="rollback", eval_every=3, steps=9)

        def gradient(*arguments: Any, run: Run = run, **options: Any) -> Any:
            number = run.progress.step + run.progress.skipped_batches
            return np.nan if number in failing else original(*arguments, **options)

        monkeypatch.setattr(step, "accumulate_gradient", gradient)
        hurried(always)
        found.append(told(run))
    assert found[0] == found[1]
    assert any("RolledBack" in event for event in found[0][0])


def test_weights_that_are_no_numbers_are_found_at_the_same_step_and_not_saved(start: Start, hurried: Any):
    found = []
    for always in (False, True):
        hurried(always)
        run = start(f"run {always}", optimizer="sgd", lr=1e300, clip=0.0, warmup=0, eval_every=100, model="bigram")
        with np.errstate(all="ignore"):
            found.append(told(run))
        assert [path.name for path in find_checkpoints(run.folder.checkpoints)] == ["step-000000"]
    assert found[0] == found[1]
    assert found[0][3].startswith("step 1: ")


def test_one_is_due_after_a_minute_and_later_where_saving_takes_long(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    saving = CheckpointClock()

    def due_after() -> float:
        began = now[0]
        while not saving.due():
            now[0] += 0.5
        return now[0] - began

    assert due_after() == 60
    for took, pause in [(1.0, 60.0), (6.0, 200.0)]:
        with saving.saving():
            now[0] += took
        assert due_after() == pause  # of which saving takes 3 % at most
