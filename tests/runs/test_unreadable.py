"""Unreadable is not absent: nothing begins anew, is cut or written over because it could not be read."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unreadable import contents, refuse_to_read
from tinygrad_chat.errors import CheckpointError, StorageError, TinygradChatError
from tinygrad_chat.experiments.ablation import Ablation
from tinygrad_chat.experiments.results import read_rows
from tinygrad_chat.experiments.running import run_ablation
from tinygrad_chat.reports.comparison import compare_runs
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.reports.summary import find_run, find_runs, summarize_run
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.lookup import newest_run
from tinygrad_chat.tracking.opening import read_identities
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run


@pytest.fixture
def run(finished: Run) -> Run:
    """A finished run."""
    return finished


def go_on(run: Run) -> None:
    for _ in train(resume_run(run.folder.path, {"steps": 4})):
        pass


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("", errno.EACCES), ("checkpoints", errno.EACCES), ("checkpoints", errno.EIO), ("samples", errno.EIO)),
        *(("config.toml", errno.EACCES), ("environment.json", errno.EACCES), ("log.jsonl", errno.EACCES)),
        *(("log.jsonl", errno.EIO), ("timing.jsonl", errno.EACCES), ("outcome.json", errno.EACCES)),
    ],
)
def test_a_run_of_which_a_part_cannot_be_read_is_not_resumed_and_stays_as_it_was(
    run: Run, name: str, code: int, monkeypatch: pytest.MonkeyPatch
):
    before = contents(run.folder.path)
    with monkeypatch.context() as patch:
        refuse_to_read(patch, run.folder.path / name, code=code)
        with pytest.raises(StorageError, match="cannot be read") as caught:
            go_on(run)
        assert "\n" not in str(caught.value)
        with pytest.raises(TinygradChatError):
            start_run(run.config, run.folder.path)
    assert contents(run.folder.path) == before
    go_on(run)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        *(("weights.safetensors", errno.EACCES), ("optimizer.safetensors", errno.EIO), ("state.json", errno.EIO)),
        *(("SHA256SUMS", errno.EACCES), ("", errno.EACCES)),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(
    run: Run, file: str, code: int, monkeypatch: pytest.MonkeyPatch
):
    """A damaged one is passed over, and its place taken: this one may be whole."""
    newest = find_checkpoints(run.folder.checkpoints)[-1]
    before = contents(run.folder.path)
    with monkeypatch.context() as patch:
        refuse_to_read(patch, newest / file, code=code)
        with pytest.raises(StorageError, match=f"{newest.name}.*: cannot be read"):
            go_on(run)
    assert contents(run.folder.path) == before
    (newest / (file or "state.json")).write_bytes(b"damaged")
    go_on(run)


def test_permissions_themselves_keep_a_run_as_it_was(run: Run):
    before, mode = contents(run.folder.path), run.folder.checkpoints.stat().st_mode
    run.folder.checkpoints.chmod(0o300)
    if os.access(run.folder.checkpoints, os.R_OK):
        pytest.skip("permissions hold neither for root nor on Windows")
    with pytest.raises(StorageError, match="checkpoints: cannot be read: no permission"):
        go_on(run)
    run.folder.checkpoints.chmod(mode)
    assert contents(run.folder.path) == before


def test_one_run_that_cannot_be_read_hides_no_other_and_says_why(run: Run, monkeypatch: pytest.MonkeyPatch):
    folder = run.folder.path.parent
    for name in ("b", "c", "log", "lock", "checkpoints"):
        shutil.copytree(run.folder.path, folder / name)
    (folder / "lock" / "outcome.json").unlink()
    unreadable = [folder / "c", folder / "log/log.jsonl", folder / "lock/.lock", folder / "checkpoints/checkpoints"]
    refuse_to_read(monkeypatch, *unreadable)
    found = {summary.path.name: summary for summary in find_runs(folder)[0]}
    assert {name for name, summary in found.items() if summary.outcome == "finished"} == {"received", "b"}
    for name in ("c", "log", "lock", "checkpoints"):
        assert found[name].outcome == "damaged"
        assert "cannot be read" in found[name].reason or "Permission denied" in found[name].reason
        assert str(folder / name) in found[name].reason
    comparison = compare_runs({name: find_run(str(folder / name), command="compare") for name in sorted(found)})
    assert [each.name for each in comparison.runs] == ["b", "received"]
    assert set(comparison.left_out) == {"c", "log", "lock", "checkpoints"}


@pytest.mark.parametrize("name", ["checkpoints", "samples", "log.jsonl", "timing.jsonl", "environment.json"])
def test_a_report_tells_what_can_be_read(run: Run, name: str, monkeypatch: pytest.MonkeyPatch):
    refuse_to_read(monkeypatch, run.folder.path / name)
    report = read_report(run.folder)
    assert report.config is not None
    assert "cannot be read" in report.outcome
    assert bool(report.samples) == (name != "samples")
    assert [path.name for path in write_report(run.folder)] == ["report.html", "report.md"]


def test_the_newest_run_is_not_passed_over_because_it_cannot_be_read(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new"):
        shutil.copytree(run.folder.path, Path("runs", name))
    for path in [Path("runs/old"), *Path("runs/old").rglob("*")]:
        os.utime(path, (10**9, 10**9))
    assert newest_run().path == Path("runs/new")
    with monkeypatch.context() as patch:
        refuse_to_read(patch, Path("runs/new/checkpoints"))
        with pytest.raises(StorageError, match=r"runs.new.checkpoints: cannot be read"):
            newest_run()
    with monkeypatch.context() as patch:
        refuse_to_read(patch, Path("runs/old"))
        assert newest_run().path == Path("runs/new")
    with monkeypatch.context() as patch:
        refuse_to_read(patch, Path("runs"))
        with pytest.raises(StorageError, match="runs: cannot be read"):
            newest_run()


@pytest.mark.parametrize(
    "name",
    ["ablation.json", "results.jsonl", "runs/norm=none,seed=1/result.json", "runs/norm=none,seed=1/checkpoints"],
)
def test_an_ablation_trains_nothing_anew_because_it_could_not_be_read(
    name: str, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"data": str(text), "layers": 1, "heads": 1, "width": 4, "context": 4, "batch_size": 1, "steps": 1}
    ablation = Ablation({**settings, "warmup": 1}, {"norm": ["none"]}, 1)
    for _ in run_ablation(ablation, tmp_path / "a"):
        pass
    if name.startswith("runs"):
        (tmp_path / "a/results.jsonl").unlink()
    if name.endswith("checkpoints"):
        (tmp_path / "a/runs/norm=none,seed=1/result.json").unlink()
    before = contents(tmp_path / "a")
    with monkeypatch.context() as patch:
        refuse_to_read(patch, tmp_path / "a" / name)
        with pytest.raises(StorageError, match="cannot be read"):
            list(run_ablation(ablation, tmp_path / "a"))
    assert contents(tmp_path / "a") == before


def test_what_trackers_know_a_run_by_is_not_written_over_unread(run: Run, monkeypatch: pytest.MonkeyPatch):
    path = run.folder.path / "tracker.json"
    path.write_text(json.dumps({"wandb": "known"}))
    assert read_identities(run) == {"wandb": "known"}
    refuse_to_read(monkeypatch, path)
    with pytest.raises(StorageError, match=r"tracker\.json: cannot be read"):
        read_identities(run)


def test_rows_and_environments_are_none_only_where_there_is_no_file(run: Run, tmp_path: Path):
    assert read_rows(tmp_path) == []
    assert RunFolder(tmp_path / "new").environments() == []
    assert summarize_run(run.folder.path).outcome == "finished"


def test_a_text_of_which_a_part_cannot_be_read_is_not_said_to_have_changed(
    start: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a", "b"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "text.txt").write_text(f"The text of {name}.\n" * 20)
    run = start(data=str(tmp_path / "texts"), steps=2)
    for _ in train(run):
        pass
    refuse_to_read(monkeypatch, tmp_path / "texts" / "b")
    with pytest.raises(CheckpointError, match=r"as 1 part of it cannot be read now, such as .*b; change"):
        go_on(run)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_sample_that_cannot_be_read_hides_no_other_and_is_told_of(
    run: Run, code: int, monkeypatch: pytest.MonkeyPatch
):
    refuse_to_read(monkeypatch, run.folder.samples / "step-000001.txt", code=code)
    report = read_report(run.folder)
    assert [step for step, _ in report.samples] == [0, 2]
    assert f"left out here: {run.folder.samples / 'step-000001.txt'}: cannot be read" in report.outcome
    go_on(run)
    assert "step-000001.txt: cannot be read" in run.folder.report.read_text(encoding="utf-8")
