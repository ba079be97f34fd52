"""Summaries of runs: what a folder says, however the run ended and whatever became of its files."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_chat.errors import DivergedError
from tinygrad_chat.files import exclusive_lock, is_locked
from tinygrad_chat.reports.comparison import compare_runs
from tinygrad_chat.reports.summary import find_runs, summarize_run
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.training.events import Logged
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]


def finish(run: Run, stop_after: int | None = None) -> None:
    for _ in train(run, should_stop=lambda: run.progress.step == stop_after):
        pass


def test_a_finished_run_is_summed_up_by_its_own_numbers(start: Start):
    run = start()
    finish(run)
    summary = summarize_run(run.folder.path)
    best = min((line for line in run.folder.records() if "val_loss" in line), key=lambda line: line["val_loss"])
    assert (summary.outcome, summary.step, summary.steps) == ("finished", 6, 6)
    assert (summary.best_val_loss, summary.best_step) == (run.progress.best_loss, run.progress.best_step)
    assert summary.val_bpb == best["val_bpb"]
    assert summary.tokens == 6 * 3 * 8
    assert summary.seconds == pytest.approx(run.progress.seconds)
    assert summary.tokens_per_second == pytest.approx(summary.tokens / run.progress.seconds)
    assert summary.parameters == run.model.parameters().size


def test_how_a_run_ended_is_told_apart(start: Start):
    finish(start("interrupted"), stop_after=4)
    with pytest.raises(DivergedError):
        finish(start("failed", optimizer="sgd", lr=1e30, clip=0.0, warmup=0))
    killed = start("killed")
    for event in train(killed):
        if isinstance(event, Logged):
            assert summarize_run(killed.folder.path).outcome == "running"
            break
    killed.folder.outcome.unlink(missing_ok=True)
    folder = killed.folder.path.parent
    found = {name: summarize_run(folder / name) for name in ("interrupted", "failed", "killed")}
    assert {name: summary.outcome for name, summary in found.items()} == {name: name for name in found}
    assert found["interrupted"].step == 4
    assert "lower --lr" in found["failed"].reason


def test_looking_whether_a_folder_is_held_neither_writes_nor_holds_it(tmp_path: Path):
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with exclusive_lock(tmp_path):
        assert is_locked(tmp_path)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with exclusive_lock(tmp_path):  # nothing of the probes is left in the way
        pass


DAMAGES = {
    "config.toml": [b"x = [", b"\xff\xfe", b"no_such_option = 1"],
    "log.jsonl": [b"\xff\x00 nothing", b"[1]\n"],
    "outcome.json": [b"{", b"[]", b'{"outcome": "happy"}', b'{"outcome": "finished", "step": "many"}'],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in DAMAGES for content in DAMAGES[name]])
def test_a_damaged_file_makes_a_damaged_run_that_says_which_file(start: Start, name: str, content: bytes):
    run = start()
    finish(run)
    (run.folder.path / name).write_bytes(content)
    summary = summarize_run(run.folder.path)
    assert summary.outcome == "damaged"
    assert name in summary.reason
    assert "\n" not in summary.reason


def test_a_folder_where_a_file_should_be_does_no_harm(start: Start):
    run = start()
    finish(run)
    run.folder.log.unlink()
    run.folder.log.mkdir()
    assert summarize_run(run.folder.path).outcome == "damaged"


@pytest.mark.parametrize("value", ["null", '"low"', "NaN", "true", "[]"])
def test_an_evaluation_that_is_no_number_is_passed_over(start: Start, value: str):
    run = start()
    finish(run)
    with run.folder.log.open("a") as log:
        log.write(f'{{"step": 6, "val_loss": {value}, "val_bpb": {value}}}\n')
    assert summarize_run(run.folder.path).best_val_loss == run.progress.best_loss


def test_what_is_not_known_is_none(start: Start):
    run = start()
    run.folder.write_config(run.config)
    summary = summarize_run(run.folder.path)
    assert (summary.outcome, summary.step, summary.tokens) == ("killed", 0, 0)
    unknown = (summary.best_val_loss, summary.val_bpb, summary.seconds, summary.tokens_per_second, summary.parameters)
    assert unknown == (None,) * 5


def test_damaged_weights_only_hide_how_many_parameters_there_are(start: Start):
    run = start()
    finish(run)
    for weights in run.folder.path.rglob("weights.safetensors"):
        weights.write_bytes(b"\x10")
    summary = summarize_run(run.folder.path)
    assert (summary.outcome, summary.parameters) == ("finished", None)
    assert math.isfinite(summary.best_val_loss or math.nan)


def test_runs_are_found_beside_other_folders_and_files_the_newest_last(start: Start):
    import os

    runs = [start(name) for name in ("b", "c", "a")]
    for age, run in enumerate(reversed(runs)):
        os.utime(run.folder.log, (1000 - age, 1000 - age))
    folder = runs[0].folder.path.parent
    (folder / "notes").mkdir()
    (folder / "todo.txt").touch()
    found, others = find_runs(folder)
    assert [summary.path.name for summary in found] == ["b", "c", "a"]
    assert {summary.outcome for summary in found} == {"damaged"}  # nothing was written into them yet
    assert others == [folder / "notes"]


DAMAGED_LINES = {
    "a step without end": '{"step": Infinity, "loss": 1.0}',
    "a step in words": '{"step": "3", "loss": 1.0}',
    "a step of 400 digits": f'{{"step": {"9" * 400}, "loss": 1.0}}',
    "nested without end": "[" * 200_000,
    "no object": "3",
}


@pytest.mark.parametrize("line", DAMAGED_LINES.values(), ids=DAMAGED_LINES)
@pytest.mark.parametrize("file", ["log.jsonl", "timing.jsonl", "environment.json", "outcome.json"])
def test_a_record_that_cannot_be_disturbs_no_command(start: Callable[..., Run], line: str, file: str):
    for name in ("a", "b"):
        for _ in train(start(name, lr=0.01 if name == "a" else 0.02)):
            pass
    a, b = (start("c").folder.path.parent / name for name in ("a", "b"))
    with (a / file).open("a" if file.endswith("jsonl") else "w") as stream:
        stream.write(line + "\n")
    summary = summarize_run(a)
    assert summary.outcome == ("damaged" if file == "outcome.json" else "finished")
    assert write_report(RunFolder(a))
    if file != "outcome.json":
        assert compare_runs({"a": a, "b": b}).reached_by_all("tokens") > 0
    run = resume_run(a, {"steps": 8})
    for _ in train(run):
        pass
    assert summarize_run(a).step == 8


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("file", ["config.toml", "log.jsonl", "outcome.json"])
def test_what_is_no_file_is_a_damaged_run_and_not_waited_for(start: Callable[..., Run], file: str):
    run = start()
    for _ in train(run):
        pass
    (run.folder.path / file).unlink()
    os.mkfifo(run.folder.path / file)
    assert summarize_run(run.folder.path).outcome == "damaged"
