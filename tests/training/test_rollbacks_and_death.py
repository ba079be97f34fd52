"""Rollbacks and skipped spikes in runs that really diverge: killed or stopped anywhere, they go on to the same bits."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.faults import at_system_call, kill_at_system_call
from tinygrad_chat.errors import DivergedError, StorageError
from tinygrad_chat.runs.checkpoint import explained_damage, find_checkpoints, load_newest
from tinygrad_chat.runs.state import Rollback, TrainingState
from tinygrad_chat.training import step
from tinygrad_chat.training.clock import CheckpointClock
from tinygrad_chat.training.events import Event, Logged, RolledBack
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]

DIVERGING: dict[str, dict[str, Any]] = {
    "gets on": {"optimizer": "sgd", "lr": 2000.0, "clip": 0.0, "seed": 558, "skip_spikes": 0.5},
    "gets on at the last try": {"optimizer": "sgd", "lr": 100.0, "clip": 0.0, "seed": 6},
    "fails for good": {"lr": 500.0, "clip": 1.0, "seed": 51},
}
"""Learning rates by which weights soon overflow. What comes of it, the rounding of the machine decides, too."""


@pytest.fixture(autouse=True)
def judged_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so short a run skip updates, too."""
    monkeypatch.setattr("tinygrad_chat.runs.recent_losses.WINDOW", 3)


@pytest.fixture
def diverging(start: Start) -> Start:
    """Start a run that diverges, by the name of its settings."""
    common: dict[str, Any] = {"steps": 20, "eval_every": 10, "checkpoint_every": 2, "keep_checkpoints": 1, "warmup": 0}
    return lambda name, settings: start(name, on_nan="rollback", **common, **DIVERGING[settings])


def events_of(run: Run, stop: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
    """What a run tells until it ends, or fails for good."""
    with contextlib.suppress(DivergedError):
        yield from train(run, should_stop=stop)


def exhaust(run: Run) -> None:
    for _ in events_of(run):
        pass


def remains(run: Run) -> tuple[bytes, bytes, str]:
    """What a run leaves that is no matter of time."""
    return run.folder.log.read_bytes(), run.model.parameters().data.tobytes(), run.folder.read_outcome()["reason"]


@pytest.mark.parametrize("settings", DIVERGING)
def test_these_runs_really_diverge(diverging: Start, settings: str):
    told = list(events_of(diverging("run", settings)))
    assert any(isinstance(event, RolledBack) for event in told)
    spikes = [event for event in told if isinstance(event, Logged) and "skipped_spike" in event.record]
    assert bool(spikes) == ("skip_spikes" in DIVERGING[settings])


SOMEWHERE, EVERYWHERE = pytest.mark.profile("ci"), pytest.mark.profile("deep")


def starts(first: int, *others: int) -> list[Any]:
    """Where to start: at the first in the profile ci, and at all in the profile deep."""
    return [pytest.param(first, marks=SOMEWHERE), *(pytest.param(other, marks=EVERYWHERE) for other in others)]


@pytest.mark.parametrize("hurried", [False, True])
@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("settings", DIVERGING)
@pytest.mark.parametrize("first", starts(10, 1, 4, 7, 13, 16, 19))
def test_ended_at_an_event_they_go_on_to_the_same_bits(
    diverging: Start, monkeypatch: pytest.MonkeyPatch, settings: str, how: str, hurried: bool, first: int
):
    """At every twentieth event from `first` on; `hurried`: with a temporary checkpoint after each step."""
    monkeypatch.setattr(CheckpointClock, "due", lambda self: hurried)
    whole = diverging("whole", settings)
    total = len(list(events_of(whole)))
    for number in range(first, total + 1, 20):
        run, seen = diverging(f"ended-{number}", settings), list[Event]()
        events = events_of(run, lambda seen=seen, number=number: how == "stopped" and len(seen) >= number)
        for event in events:
            seen.append(event)
            if how == "killed" and len(seen) == number:
                break
        events.close()
        resumed = resume_run(run.folder.path, {})
        exhaust(resumed)
        assert remains(resumed) == remains(whole), number


def calls_of_rollbacks(run: Run) -> list[int]:
    """Train, and number the calls to the system that rollbacks make: from the event before one to the next."""
    numbers, before = list[int](), 0
    with at_system_call(0, lambda: None) as made:
        for event in events_of(run):
            if isinstance(event, RolledBack):
                numbers += range(before + 1, len(made) + 1)
            before = len(made)
    return numbers


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot copy a process")
@pytest.mark.parametrize("settings", DIVERGING)
@pytest.mark.parametrize("first", starts(0, 60, 120, 180, 240, 300))
def test_killed_at_a_call_of_a_rollback_they_go_on_to_the_same_bits(diverging: Start, settings: str, first: int):
    """At every 350th call; `python -m bench survival` takes those of a whole run."""
    exhaust(diverging("again", settings))  # what is only done at first has been done then
    whole = diverging("whole", settings)
    numbers = calls_of_rollbacks(whole)
    assert len(numbers) > 100
    for number in numbers[first::350]:
        run = diverging(f"killed-{number}", settings)
        assert kill_at_system_call(number, partial(exhaust, run))
        for checkpoint in find_checkpoints(run.folder.checkpoints):
            TrainingState.load(checkpoint)
        said: list[str] = []
        resumed = resume_run(run.folder.path, {}, say=said.append)
        exhaust(resumed)
        assert remains(resumed) == remains(whole), number
        assert said == []


@pytest.mark.parametrize("moment", ["at once", "before the first step after it"])
def test_what_a_rollback_learned_is_on_disk_with_it(start: Start, monkeypatch: pytest.MonkeyPatch, moment: str):
    run = start(on_nan="rollback", eval_every=3, steps=9)
    original = step.accumulate_gradient

    def gradient(*arguments: Any, **options: Any) -> Any:
        return float("nan") if run.progress.step == 5 else original(*arguments, **options)

    monkeypatch.setattr(step, "accumulate_gradient", gradient)
    rolled_back = 0
    for event in train(run):
        rolled_back += isinstance(event, RolledBack)
        if rolled_back == 2 and (moment == "at once" or not isinstance(event, RolledBack)):
            break
    saved = load_newest(run.folder.checkpoints, TrainingState.load, say=print)
    assert saved is not None
    assert saved.progress.rollbacks == (Rollback(3, 5), Rollback(3, 5))
    assert saved.progress.skipped_batches == 6  # batches 3 to 5, and those that took their place
    resumed = resume_run(run.folder.path, {})
    assert [record["step"] for record in resumed.folder.records()] == [0, 1, 2, 3, 3]
    assert resumed.progress == saved.progress


def test_a_checkpoint_that_cannot_be_read_is_not_passed_over(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start(on_nan="rollback", eval_every=3, steps=9)
    original, load = step.accumulate_gradient, TrainingState.load
    broken = [True]

    def gradient(*arguments: Any, **options: Any) -> Any:
        number = run.progress.step + run.progress.skipped_batches
        return float("nan") if number == 7 else original(*arguments, **options)

    def load_unless_broken(path: Path) -> TrainingState:
        with explained_damage(path):
            if broken.pop() if broken else False:
                raise OSError(errno.EIO, "Input/output error")
        return load(path)

    monkeypatch.setattr(step, "accumulate_gradient", gradient)
    monkeypatch.setattr(TrainingState, "load", load_unless_broken)
    with pytest.raises(
        StorageError, match=r"step-000006: .*Input/output error.*; then resume with: tgc train --resume"
    ):
        list(train(run))
    assert find_checkpoints(run.folder.checkpoints)[-1].name == "step-000006"
    run = resume_run(run.folder.path, {})
    assert [event.step for event in train(run) if isinstance(event, RolledBack)] == [6]


def test_a_stop_leaves_nothing_to_roll_back_to(start: Start):
    run = start(checkpoint_every=2, eval_every=100, steps=9)
    for _ in train(run, should_stop=lambda: run.progress.step >= 5):
        pass
    assert run.folder.newest_checkpoint().name == "step-000005"
    resumed = resume_run(run.folder.path, {})
    next(train(resumed))
    assert run.folder.newest_checkpoint().name == "step-000005-temporary"


@pytest.fixture
def failing(start: Start, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a run whose gradient is no number when training first gets to each of the steps `at`."""

    def begin(*at: int, **settings: Any) -> Run:
        run, left, original = start(on_nan="rollback", **settings), [*at], step.accumulate_gradient

        def gradient(*arguments: Any, **options: Any) -> Any:
            if run.progress.step in left:
                left.remove(run.progress.step)
                return float("nan")
            return original(*arguments, **options)

        monkeypatch.setattr(step, "accumulate_gradient", gradient)
        return run

    return begin


def test_rollbacks_are_forgotten_once_training_is_past_them(failing: Start):
    run = failing(1, 3, 5, 7, eval_every=2, steps=9)  # one more than there may be at one place
    failed = [event.failed_step for event in train(run) if isinstance(event, RolledBack)]
    assert failed == [1, 3, 5, 7]
    assert run.folder.read_outcome()["outcome"] == "finished"


def test_a_stop_forgets_no_rollbacks(failing: Start):
    run = failing(4, eval_every=3, steps=9)
    for _ in train(run, should_stop=lambda: run.progress.step == 5):
        pass
    assert run.progress.rollbacks == (Rollback(3, 4),)  # until the checkpoint of step 6, as without the stop
