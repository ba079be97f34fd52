"""The training loop: what it does in which order, and that stopping it anywhere changes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT
from tinygrad_chat.config.files import parse_settings
from tinygrad_chat.config.record import SPECS, TrainingConfig
from tinygrad_chat.errors import CheckpointError, ConfigError, DataError, DivergedError, StorageError, UsageError
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.lookup import newest_run
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.training import batches, clock, loop
from tinygrad_chat.training import evaluation as evaluation_module
from tinygrad_chat.training.events import Ended, Evaluated, Event, Logged, Saved, Stepped
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

Start = Callable[..., Run]

VARIANTS: list[dict[str, Any]] = [
    {},
    {"model": "bigram"},
    {"optimizer": "sgd", "lr_schedule": "cosine"},
    {"mode": "scalar", "eval_tokens": 5, "width": 4, "context": 4, "batch_size": 1},
    {"dropout": 0.3, "lr_schedule": "1-sqrt", "positions": "rotary", "tokenizer": "bytes"},
]


def finish(run: Run, stop_after: int | None = None) -> list[Event]:
    return list(train(run, should_stop=lambda: stop_after is not None and run.progress.step >= stop_after))


def log(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.folder.log.read_text(encoding="utf-8").splitlines()]


def test_it_evaluates_at_step_0_at_each_interval_and_at_the_end(start: Start):
    events = finish(start(steps=7, eval_every=3))
    assert [event.step for event in events if isinstance(event, Evaluated)] == [0, 3, 6, 7]
    assert [event.step for event in events if isinstance(event, Stepped)] == [1, 2, 3, 4, 5, 6, 7]
    assert events[-1] == Ended(7, interrupted=False)


def test_it_evaluates_on_the_first_of_the_held_out_tokens_or_on_all(start: Start):
    def predicted(eval_tokens: int) -> list[int]:
        events = finish(start(f"of {eval_tokens}", steps=1, warmup=0, eval_tokens=eval_tokens))
        return [event.evaluation.tokens for event in events if isinstance(event, Evaluated)]

    run = start("held out")
    held_out = run.dataset.validation_tokens
    assert predicted(30) == [29, 29]
    assert predicted(0) == predicted(10**6) == [held_out - 1] * 2


def test_the_checkpoint_of_a_step_is_on_disk_before_its_evaluation_starts(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    run, steps_seen = start(), []

    def evaluate(*arguments: Any, **options: Any) -> Any:
        newest = TrainingState.load(find_checkpoints(run.folder.checkpoints)[-1])
        np.testing.assert_array_equal(newest.weights["blocks.0.feed_forward.expand.weight"], weight().data)
        steps_seen.append(newest.step)
        return evaluation_module.evaluate(*arguments, **options)

    def weight() -> Any:
        return run.model.parameters()["blocks.0.feed_forward.expand.weight"]

    monkeypatch.setattr(loop, "evaluate", evaluate)
    finish(run)
    assert steps_seen == [0, 3, 6]


def test_checkpoints_come_at_their_own_interval_too(start: Start):
    events = finish(start(eval_every=100, checkpoint_every=2))
    assert [event.step for event in events if isinstance(event, Saved)] == [0, 2, 4, 6]


def test_the_log_is_one_json_object_a_line_with_what_people_plot(start: Start):
    run = start(log_every=2)
    events = finish(run)
    lines = [json.loads(line) for line in run.folder.log.read_text(encoding="utf-8").splitlines()]
    assert lines == [event.record for event in events if isinstance(event, Logged)]
    assert [line["step"] for line in lines] == [0, 2, 3, 4, 6]
    assert lines[0].keys() == {"step", "loss", "val_loss", "val_perplexity", "val_bpb", "lr", "grad_norm"}
    assert lines[-1].keys() == {"step", "val_loss", "val_perplexity", "val_bpb"}
    timings = [json.loads(line) for line in run.folder.timing.read_text(encoding="utf-8").splitlines()]
    assert timings == [event.timing for event in events if isinstance(event, Logged)]
    assert [timing["step"] for timing in timings] == [line["step"] for line in lines]
    assert timings[0].keys() == {"step", "seconds", "memory", "tokens_per_second"}
    assert timings[0]["seconds"] == 0 < timings[-1]["seconds"]


def test_a_run_learns(start: Start):
    run = start(steps=150, eval_every=150, lr=0.02)
    finish(run)
    first, *_, last = log(run)
    assert last["val_loss"] < 0.6 * first["val_loss"]
    assert run.progress.best_step == 150


def test_a_run_leaves_what_made_it(start: Start):
    run = start()
    events = finish(run)
    config = TrainingConfig.of(**parse_settings(run.folder.config.read_text(encoding="utf-8"), source="x"))
    assert config == run.config
    assert tomllib.loads(run.folder.config.read_text(encoding="utf-8"))["run"]["seed"] == 1
    [environment] = json.loads(run.folder.environment.read_text(encoding="utf-8"))
    assert {"from_step", "python", "numpy", "blas", "processors"} <= environment.keys()
    state = TrainingState.load(run.folder.newest_checkpoint())
    assert state.data["sha256"] == run.dataset.sha256
    for event in events:
        if isinstance(event, Evaluated):
            assert (run.folder.samples / f"step-{event.step:06d}.txt").read_text(encoding="utf-8") == event.sample


@pytest.mark.profile("ci")
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_same_seed_gives_the_same_log_and_another_seed_another(start: Start, variant: dict[str, Any]):
    runs = {name: start(name, seed=seed, **variant) for name, seed in [("a", 1), ("b", 1), ("c", 2)]}
    for run in runs.values():
        finish(run)
    assert log(runs["a"]) == log(runs["b"])
    assert log(runs["a"]) != log(runs["c"])


def test_a_finished_run_trains_on_with_more_steps(start: Start):
    run = start()
    finish(run)
    longer = resume_run(run.folder.path, {"steps": 9})
    assert finish(longer)[-1] == Ended(9, interrupted=False)
    assert [record["step"] for record in log(longer)] == list(range(10))


def test_a_line_that_a_crash_cut_short_disappears_on_resuming(start: Start):
    run = start()
    finish(run, stop_after=4)
    with run.folder.log.open("a") as file:
        file.write('{"step": 4, "los')
    resumed = resume_run(run.folder.path, {})
    finish(resumed)
    assert [record["step"] for record in log(resumed)] == [0, 1, 2, 3, 4, 5, 6]


def test_changed_data_a_changed_model_and_fewer_steps_are_refused_on_resuming(start: Start, tmp_path: Path):
    data = tmp_path / "mine.txt"
    data.write_text("some text of mine " * 20)
    run = start(data=str(data))
    finish(run, stop_after=4)
    with pytest.raises(ConfigError, match="--width: the run to resume has 8, received 16"):
        resume_run(run.folder.path, {"width": 16})
    with pytest.raises(ConfigError, match="--steps: expected at least the 4"):
        resume_run(run.folder.path, {"steps": 3})
    data.write_text("some mine of text " * 20)
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        resume_run(run.folder.path, {})


def test_a_folder_with_a_run_is_not_overwritten(start: Start):
    finish(start())
    with pytest.raises(UsageError, match="holds a run already; add --resume"):
        start()


def test_a_time_limit_ends_the_run_with_the_learning_rate_at_its_minimum(start: Start, monkeypatch: pytest.MonkeyPatch):
    seconds = iter(range(10_000))
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(seconds))  # each step seems to take a second
    run = start(steps=1000, minutes=10 / 60, min_lr=1e-4, eval_every=1000)
    assert finish(run)[-1] == Ended(10, interrupted=False)
    rates = [record["lr"] for record in log(run) if "lr" in record]
    assert rates[0] == pytest.approx(run.config.optimizer.lr / 2)  # the first of two steps of warm-up
    assert max(rates) > 4 * rates[-1]
    assert [record["step"] for record in log(run) if "val_loss" in record] == [0, 10]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_checkpoints(start: Start):
    run = start(optimizer="sgd", lr=1e30, clip=0.0, warmup=0)
    with pytest.raises(DivergedError, match=r"step \d+: the loss is .* lower --lr"):
        finish(run)
    assert TrainingState.load(run.folder.newest_checkpoint()).step == 0


def test_a_full_disk_is_one_line_and_the_checkpoints_before_it_stay(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start()
    events = train(run)
    while not isinstance(next(events), Stepped):
        pass

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"cannot be written: the disk is full"):
            list(events)
    assert [path.name for path in find_checkpoints(run.folder.checkpoints)] == ["step-000000"]
    assert list(run.folder.checkpoints.glob(".*")) == []
    finish(resume_run(run.folder.path, {}))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux says by which name a file is open")
def test_no_checkpoint_outlives_the_lines_of_the_log_before_it(start: Start, monkeypatch: pytest.MonkeyPatch):
    """What is forced to the disk between one checkpoint's name and the next."""
    forced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched(descriptor: int) -> None:
        forced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def named(path: Path, target: Path) -> Path:
        if re.fullmatch(r"step-\d+", target.name):
            assert {"log.jsonl", "timing.jsonl"} <= set(forced), target
            forced.clear()
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "rename", named)
    finish(start())


def test_what_cannot_be_written_is_how_the_run_ended_and_says_how_to_go_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    run = start("a run")

    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(TrainingState, "save", full)
    with pytest.raises(StorageError, match=r"full; then resume with: tgc train --resume --out '.*a run'"):
        finish(run)
    assert run.folder.read_outcome()["outcome"] == "failed"
    assert (run.folder.path / "report.html").exists()


def test_a_report_that_cannot_be_written_hides_neither_the_end_nor_a_failure(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(loop, "write_report", full)
    assert finish(start("whole"))[-1] == Ended(6, interrupted=False, trouble="the disk is full")
    with pytest.raises(DivergedError, match="the loss is"):
        finish(start("failing", optimizer="sgd", lr=1e30, clip=0.0, warmup=0))


def test_more_steps_are_said_to_stretch_the_schedule_and_no_more_to_change_nothing(start: Start):
    run = start()
    finish(run)
    said: list[str] = []
    resume_run(run.folder.path, {"steps": 9}, say=said.append)
    resume_run(run.folder.path, {}, say=said.append)
    assert "--steps 9: from here on, the learning rate follows a schedule of that length" in said[0]
    assert said[1].endswith(
        f"its 6 steps are done; continue training with: tgc train --resume --out {run.folder.path} --steps 12"
    )


def test_dropout_does_not_change_the_batches(start: Start, monkeypatch: pytest.MonkeyPatch):
    drawn: list[Any] = []
    original = batches.random_batch
    monkeypatch.setattr(batches, "random_batch", lambda *a, **k: drawn.append(original(*a, **k)) or drawn[-1])
    finish(start("without", steps=2))
    finish(start("with", steps=2, dropout=0.5))
    for before, after in zip(drawn[:2], drawn[2:], strict=True):
        np.testing.assert_array_equal(before, after)


# An option that changed nothing would be a lie. Each value here differs from the tiny run's.
CHANGES: dict[str, Any] = {
    "layers": 2,
    "heads": 1,
    "key_value_heads": 1,
    "width": 16,
    "context": 6,
    "norm": "rmsnorm",
    "norm_epsilon": 0.1,
    "activation": "squared_relu",
    "positions": "rotary",
    "tied": False,
    "bias": True,
    "query_key_value_bias": True,
    "dropout": 0.5,
    "window": 2,
    "embedding_norm": True,
    "smear": True,
    "residual_scales": True,
    "value_embeddings": True,
    "backout": True,
    "vocabulary_multiple": 5,
    "initialisation": "nanochat",
    "head_width": 6,
    "feed_forward_width": 9,
    "soft_cap": 0.01,
    "model": "bigram",
    "mode": "scalar",
    "tokenizer": "bytes",
    "batch_size": 2,
    "optimizer": "muon",
    "lr": 1e-3,
    "min_lr": 3e-3,
    "lr_schedule": "cosine",
    "warmup": 4,
    "warmdown": 0.5,
    "weight_decay": 5.0,
    "beta1": 0.5,
    "beta2": 0.5,
    "clip": 1e-9,
    "seed": 2,
    "eval_every": 4,
    "eval_tokens": 9,
    "log_every": 2,
    "grad_accumulation": 3,
    "packing": "best-fit",
}
ELSEWHERE = {
    "backend",
    "eval_problems",
    "group_size",
    "lora",
    "lora_alpha",
    "max_new_tokens",
    "objective",
    "recompute",
    "task",
    "temperature",
    "document_mask",
    "data",
    "text_field",
    "encoding",
    "split",
    "steps",
    "minutes",
    "checkpoint_every",
    "keep_checkpoints",
    "track",
    "on_nan",
    "skip_spikes",
    "max_memory_growth",
    "kernels",
    "graph",
    "autotune",
    "threads",
    "dtype",
    "depth",
    "tokens_per_parameter",
    "start_from",
}  # have tests of their own
LLAMA3 = {"positions": "rotary", "rotary_scaling": "llama3", "rotary_original_context": 10}
BESIDE: dict[str, tuple[dict[str, Any], Any]] = {
    "momentum": ({"optimizer": "sgd"}, 0.5),
    "norm_gain": ({"norm": "rmsnorm"}, False),
    "rotary_base": ({"positions": "rotary"}, 10.0),
    "qk_norm": ({"positions": "rotary"}, 1.2),
    "qk_gain": ({"positions": "rotary", "qk_norm": 1.0}, True),
    "rotary_scaling": ({"positions": "rotary"}, "linear"),
    "rotary_factor": ({"positions": "rotary", "rotary_scaling": "linear"}, 3.0),
    "rotary_original_context": (LLAMA3, 100),
    "rotary_slow_turns": (LLAMA3, 1e-6),
    "rotary_fast_turns": (LLAMA3, 1e6),
    "rotary_attention_factor": ({"positions": "rotary", "rotary_scaling": "yarn"}, 2.0),
    "no_rotary_every": ({"positions": "rotary"}, 1),
    "window_pattern": ({"window": 2, "layers": 2}, "SL"),
    "embedding_lr": ({"optimizer": "muon"}, 0.1),
    "head_lr": ({"optimizer": "muon", "tied": False}, 0.1),
    "scalar_lr": ({"optimizer": "muon", "smear": True}, 0.1),
    "document_token": ({"document_mask": True, "document_token": 0}, 1),
    "vocabulary": ({"tokenizer": "bpe"}, 270),
    "pre_tokenizer": ({"tokenizer": "bpe"}, "gpt2"),
}
"""Options that act beside others: name -> (those, another value)."""


@pytest.mark.profile("ci")
@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_run(start: Start, name: str):
    before, after = start("before", steps=6), start("after", **{"steps": 6, name: CHANGES[name]})
    finish(before)
    finish(after)
    assert log(before) != log(after)


@pytest.mark.parametrize("name", BESIDE)
def test_every_option_changes_the_run_of_those_that_it_stands_beside(start: Start, name: str):
    beside, value = BESIDE[name]
    before, after = start("before", **beside), start("after", **{**beside, name: value})
    finish(before)
    finish(after)
    assert log(before) != log(after)


def test_no_option_is_left_out_of_these():
    assert SPECS.keys() == CHANGES.keys() | BESIDE.keys() | ELSEWHERE


def test_the_two_newest_checkpoints_and_the_best_stay(start: Start):
    run = start(eval_every=2, checkpoint_every=1, steps=8)
    finish(run)
    steps = {TrainingState.load(path).step for path in find_checkpoints(run.folder.checkpoints)}
    assert steps == {7, 8, run.progress.best_step}


def test_evaluation_builds_no_graph(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start(steps=2)
    graphs = []
    original = GPT.hidden
    monkeypatch.setattr(GPT, "hidden", lambda *a, **k: graphs.append(original(*a, **k)) or graphs[-1])
    loop._evaluate(run)
    assert {graph.rule for graph in graphs} == {None}


def test_weights_that_are_no_numbers_are_never_saved(start: Start):
    run = start(optimizer="sgd", lr=1e300, clip=0.0, warmup=0, steps=1, model="bigram")
    with (
        np.errstate(all="ignore"),
        pytest.raises(DivergedError, match=r"the last update left NaN or infinity in token_embedding\.weight"),
    ):
        finish(run)
    assert [path.name for path in find_checkpoints(run.folder.checkpoints)] == ["step-000000"]


def test_a_log_whose_last_newline_was_lost_keeps_its_lines_apart(start: Start):
    run = start()
    finish(run, stop_after=4)
    run.folder.log.write_bytes(run.folder.log.read_bytes().rstrip(b"\n"))
    resumed = resume_run(run.folder.path, {})
    finish(resumed)
    assert [record["step"] for record in log(resumed)] == [0, 1, 2, 3, 4, 5, 6]


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(
    tiny: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    paths = [start_run(tiny()).folder.path for _ in range(3)]
    assert len(set(paths)) == 3


def test_the_newest_run_is_the_one_whose_checkpoint_was_written_last(
    tiny: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        finish(start_run(tiny(), Path("runs") / name))
    os.utime("runs/b/checkpoints/step-000006", (1, 1))
    assert newest_run().path == Path("runs/a")


def test_a_finished_run_that_goes_on_keeps_its_last_evaluation_and_its_best(start: Start):
    run = start(steps=5, eval_every=4)
    finish(run)
    best = run.progress.best_loss
    longer = resume_run(run.folder.path, {"steps": 6})
    events = finish(longer)
    assert [event.step for event in events if isinstance(event, Evaluated)] == [5, 6]
    assert [record["step"] for record in log(longer) if "val_loss" in record] == [0, 4, 5, 6]
    assert best is not None
    assert longer.progress.best_loss is not None
    assert longer.progress.best_loss <= best


def test_the_best_step_is_that_of_the_lowest_validation_loss_and_its_checkpoint_stays(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    found = iter([3.0, 1.0, 2.0])

    def evaluate(*_: Any, **__: Any) -> evaluation_module.Evaluation:
        return evaluation_module.Evaluation(next(found), 1.0, 1.0, 1, 1)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    run = start(steps=6, eval_every=3, keep_checkpoints=1)
    finish(run)
    assert (run.progress.best_step, run.progress.best_loss) == (3, 1.0)
    assert [path.name for path in find_checkpoints(run.folder.checkpoints)] == ["step-000003", "step-000006"]


def test_damaged_tokens_in_the_cache_are_named(start: Start):
    """A store is opened without looking at every token: one that no vocabulary has is met where it is trained on."""
    run = start()
    assert isinstance(run.dataset, Dataset)
    run.dataset = dataclasses.replace(run.dataset, training=run.dataset.training * 0 + 250)
    with pytest.raises(DataError, match="received 250: the token cache is damaged"):
        finish(run)
