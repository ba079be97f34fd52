"""Stopping a run anywhere and going on changes nothing: the same losses, weights and log, to the last bit."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import TINY, without_idle
from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.errors import CheckpointError, UsageError
from tinygrad_chat.optim import SCHEDULES
from tinygrad_chat.runs.checkpoint import checkpoint_path, find_checkpoints
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.training.events import Ended, Evaluated, Saved, Stepped
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

SETTINGS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["bigram", "mini-gpt"]),
        "optimizer": st.sampled_from(["adamw", "sgd"]),
        "lr_schedule": st.sampled_from(sorted(SCHEDULES)),
        "warmdown": st.sampled_from([0.5, 1.0]),
        "eval_every": st.integers(1, 9),
        "checkpoint_every": st.none() | st.integers(1, 5),
        "log_every": st.integers(1, 4),
        "keep_checkpoints": st.integers(1, 3),
        "skip_spikes": st.none() | st.just(0.1),
        "clip": st.sampled_from([0.0, 0.1]),
        "packing": st.sampled_from(["none", "best-fit"]),
        "document_mask": st.booleans(),
        "document_token": st.just(0),
    }
)
ENGINE = st.one_of(
    st.fixed_dictionaries(
        {
            "batch_size": st.just(6),
            "grad_accumulation": st.sampled_from([1, 2, 3, 6]),
            "dropout": st.sampled_from([0.0, 0.3]),
            "positions": st.sampled_from(["learned", "rotary"]),
            "tokenizer": st.sampled_from(["characters", "bytes"]),
        }
    ),
    st.fixed_dictionaries(
        {
            "mode": st.just("scalar"),
            "width": st.just(4),
            "context": st.just(4),
            "eval_tokens": st.just(5),
            "batch_size": st.just(2),
            "grad_accumulation": st.sampled_from([1, 2]),
        }
    ),
)
STEPS = 9


@pytest.fixture(autouse=True)
def judged_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so short a run skip updates, too."""
    monkeypatch.setattr("tinygrad_chat.runs.recent_losses.WINDOW", 2)


def finish(run: Run, stop_after: int | None = None) -> Ended:
    *_, last = train(run, should_stop=lambda: stop_after is not None and run.progress.step >= stop_after)
    assert isinstance(last, Ended)
    return last


def kill_at(run: Run, step: int) -> None:
    """Train until `step` updates are done, and stop as a process that is killed does: without another word."""
    events = train(run)
    for event in events:
        if isinstance(event, Stepped) and event.step >= step:
            break
    events.close()


def remains(run: Run) -> dict[str, Any]:
    """All that a run leaves and that its seed decides."""
    newest = TrainingState.load(checkpoint_path(run.folder.checkpoints, run.progress.step))
    return {
        "log": run.folder.log.read_bytes(),
        "samples": {file.name: file.read_bytes() for file in run.folder.samples.iterdir()},
        "checkpoints": [path.name for path in find_checkpoints(run.folder.checkpoints)],
        "weights": {name: array.tobytes() for name, array in newest.weights.items()},
        "optimizer": {name: array.tobytes() for name, array in newest.optimizer.items()},
        "data": newest.data,
        "progress": dataclasses.replace(newest.progress, seconds=0.0),
    }


@pytest.mark.profile("ci")
@given(
    settings=SETTINGS,
    engine=ENGINE,
    stops=st.lists(st.tuples(st.integers(0, STEPS), st.booleans()), max_size=4),
    hurried=st.booleans(),
)
def test_a_run_stopped_at_any_steps_goes_on_as_if_it_never_had(
    text: Path, settings: dict[str, Any], engine: dict[str, Any], stops: list[tuple[int, bool]], hurried: bool
):
    """However it was stopped, and with a temporary checkpoint after every step or with none."""
    chosen = {name: value for name, value in {**settings, **engine}.items() if value is not None}
    config = resolve(without_idle({**TINY, "data": str(text), "steps": STEPS, **chosen}))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        whole = start_run(config, Path(folder) / "whole")
        finish(whole)
        patch.setattr("tinygrad_chat.training.clock.CheckpointClock.due", lambda self: hurried)
        stopped = start_run(config, Path(folder) / "stopped")
        for stop, kill in stops:
            if kill:
                kill_at(stopped, stop)
            else:
                assert finish(stopped, stop_after=stop) == Ended(max(stop, stopped.progress.step), interrupted=True)
            before = stopped.progress.step
            stopped = resume_run(stopped.folder.path, {})
            assert kill or stopped.progress.step == before
        assert finish(stopped) == Ended(STEPS, interrupted=False)
        mine, theirs = remains(stopped), remains(whole)
        # A stop leaves a checkpoint of its own; however that may be, the newest and the best stay and no others.
        kept = mine.pop("checkpoints")
        assert theirs.pop("checkpoints")[-1] == kept[-1] == f"step-{STEPS:06d}"
        assert f"step-{stopped.progress.best_step:06d}" in kept
        assert len(kept) <= config.run.keep_checkpoints + 1
        assert mine == theirs


Start = Callable[..., Run]


def test_a_killed_run_goes_on_from_its_newest_checkpoint_as_if_it_never_had_been(start: Start):
    whole, run = start("whole"), start("killed")
    finish(whole)
    kill_at(run, 5)
    resumed = resume_run(run.folder.path, {})
    assert resumed.progress.step == 3
    finish(resumed)
    assert remains(resumed) == remains(whole)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(start: Start):
    whole, run = start("whole"), start("killed")
    finish(whole)
    events = train(run)
    assert any(isinstance(event, Saved) for event in events)
    events.close()
    for path in find_checkpoints(run.folder.checkpoints):
        path.rename(path.with_name(f".{path.name}.tgc-partial"))  # as if it had not been finished
    said: list[str] = []
    resumed = resume_run(run.folder.path, {}, say=said.append)
    finish(resumed)
    assert remains(resumed) == remains(whole)
    assert "no checkpoint yet; starting from step 0" in said[0]
    assert list(run.folder.checkpoints.glob(".*")) == []


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["missing", "cut", "one bit"])
def test_a_damaged_checkpoint_is_named_and_passed_over_and_its_place_taken(start: Start, file: str, damage: str):
    whole, run = start("whole", keep_checkpoints=3), start("damaged", keep_checkpoints=3)
    finish(whole)
    finish(run)
    target = checkpoint_path(run.folder.checkpoints, 6) / file
    content = bytearray(target.read_bytes())
    if damage == "missing":
        target.unlink()
    elif damage == "cut":
        target.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        target.write_bytes(content)
    said: list[str] = []
    resumed = resume_run(run.folder.path, {}, say=said.append)
    assert resumed.progress.step == 3
    assert len(said) == 1
    assert "step-000006" in said[0]
    assert said[0].endswith("; skipped")
    finish(resumed)
    assert remains(resumed) == remains(whole)


def test_where_every_checkpoint_is_damaged_each_is_named_and_one_line_says_so(start: Start):
    run = start()
    finish(run)
    for path in find_checkpoints(run.folder.checkpoints):
        (path / "state.json").write_text("{")
    said: list[str] = []
    with pytest.raises(CheckpointError, match="no complete checkpoint there"):
        resume_run(run.folder.path, {}, say=said.append)
    assert len(said) == len(find_checkpoints(run.folder.checkpoints))


def test_a_checkpoint_under_the_name_of_another_step_is_passed_over(start: Start):
    run = start()
    finish(run)
    checkpoint_path(run.folder.checkpoints, 6).rename(checkpoint_path(run.folder.checkpoints, 9))
    said: list[str] = []
    assert resume_run(run.folder.path, {}, say=said.append).progress.step == 3
    assert "it is of step 6" in said[0]


@pytest.mark.profile("ci")
def test_a_run_folder_takes_one_process_at_a_time_and_names_the_other(start: Start, text: Path):
    run = start()
    events = train(run)
    next(events)
    before = {file: file.read_bytes() for file in run.folder.path.rglob("*") if file.is_file()}
    other = start_run(run.config, run.folder.path.parent / "other")
    other.folder = run.folder  # as if both had started at the same moment
    for start_other in (
        lambda: next(train(other)),
        lambda: start_run(run.config, run.folder.path),
        lambda: resume_run(run.folder.path, {}),
    ):
        with pytest.raises(UsageError, match=r"run: process \d+ is using it"):
            start_other()
    assert before == {file: file.read_bytes() for file in run.folder.path.rglob("*") if file.is_file()}
    events.close()
    finish(resume_run(run.folder.path, {}))


def test_a_run_on_which_another_process_has_trained_since_it_was_read_is_not_trained(start: Start):
    run = start()
    finish(run, stop_after=2)
    read = resume_run(run.folder.path, {})
    finish(resume_run(run.folder.path, {}))
    log = run.folder.log.read_bytes()
    with pytest.raises(UsageError, match="another process has just trained this run; resume it again"):
        finish(read)
    assert run.folder.log.read_bytes() == log


def test_each_start_says_what_it_was_made_with_and_from_which_step(start: Start):
    run = start()
    finish(run, stop_after=2)
    finish(resume_run(run.folder.path, {}), stop_after=4)
    finish(resume_run(run.folder.path, {}))
    assert [entry["from_step"] for entry in run.folder.environments()] == [0, 2, 4]


def test_how_a_run_ended_is_in_its_folder_and_gone_while_it_goes_on(start: Start):
    run = start()
    finish(run, stop_after=2)
    assert json.loads(run.folder.outcome.read_bytes()) == {
        "outcome": "interrupted",
        "step": 2,
        "seconds": resume_run(run.folder.path, {}).progress.seconds,
        "reason": "",
    }
    events = train(resume_run(run.folder.path, {}))
    next(events)
    assert not run.folder.outcome.exists()
    assert [event.step for event in events if isinstance(event, Evaluated)] == [3, 6]
    assert json.loads(run.folder.outcome.read_bytes())["outcome"] == "finished"


@pytest.mark.profile("ci")
@pytest.mark.parametrize("mode", ["tensor", "scalar"])
def test_micro_batches_give_the_gradient_of_the_whole_to_rounding(start: Start, mode: str):
    from tinygrad_chat.text.batches import random_batch
    from tinygrad_chat.training.step import accumulate_gradient

    run = start(mode=mode, batch_size=12, context=5, width=4)
    batch = random_batch(run.dataset.parts[0].training, batch_size=12, context=5, random=np.random.default_rng(3))
    loss = accumulate_gradient(run.model, batch, micro_batches=1)
    gradient = run.model.parameters().gradient.copy()
    for micro_batches in (2, 3, 4, 6, 12):
        assert accumulate_gradient(run.model, batch, micro_batches=micro_batches) == pytest.approx(loss, rel=1e-6)
        scale = float(np.abs(gradient).max())
        tolerance = 1e-6 if mode == "tensor" else 1e-13
        np.testing.assert_allclose(run.model.parameters().gradient, gradient, rtol=0, atol=tolerance * scale)


def test_a_damaged_log_is_said_once_and_then_expected_as_repaired(start: Start):
    run = start()
    finish(run, stop_after=4)
    lines = run.folder.log.read_bytes().splitlines(keepends=True)
    run.folder.log.write_bytes(b"".join([lines[0], b"{\n", *lines[2:]]))
    said: list[str] = []
    resumed = resume_run(run.folder.path, {}, say=said.append)
    assert len(said) == 1
    assert "log.jsonl" in said[0]
    kill_at(resumed, 4)
    resume_run(run.folder.path, {}, say=said.append)
    assert len(said) == 1
