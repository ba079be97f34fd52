"""The folder of a run that goes on from a checkpoint of an earlier version, or from the last whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import CheckpointError, UsageError
from tinygrad_chat.runs.checkpoint import checkpoint_path
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import Progress


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.create()
    for step in range(5):
        folder.append({"step": step, "loss": 1.0}, {"step": step, "seconds": 0.5})
    return folder


def test_without_a_mark_a_log_ends_before_the_step_that_comes_again(folder: RunFolder):
    folder.log.write_bytes(folder.log.read_bytes() + b'{"step": 5, "lo')
    assert not folder.lines.go_on({}, 3)
    assert [record["step"] for record in folder.records()] == [0, 1, 2]
    assert [record["step"] for record in folder.timings()] == [0, 1, 2]


def test_the_newest_whole_checkpoint_is_opened_and_a_damaged_one_named(folder: RunFolder):
    said: list[str] = []

    def load(path: Path) -> Progress:
        step = int(path.name.removeprefix("step-"))
        if step == 9:
            raise CheckpointError(f"{path}: the checkpoint is damaged")
        return Progress(step=step)

    for step in (3, 7, 9):
        checkpoint_path(folder.checkpoints, step).mkdir()
    assert folder.open_newest(load, say=said.append).step == 7
    assert said == [f"{checkpoint_path(folder.checkpoints, 9)}: the checkpoint is damaged; skipped"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", "[server]\nport = 80\n"),
        ("config.toml", "# what I tried\nlr = 0.01\n"),
        ("config.toml", "no TOML"),
        ("config.toml", "# nothing yet\n"),
        ("config.toml", b"\xff"),
        ("environment.json", "[]"),
        ("log.jsonl", '{"level": "info"}\n'),
        ("timing.jsonl", "{}"),
        ("outcome.json", '{"won": true}'),
        ("evaluation.json", "{}"),
        ("report.html", "<p>of the year</p>"),
        ("report.md", "# of the year"),
    ],
)
def test_what_somebody_else_wrote_is_not_written_over(tmp_path: Path, name: str, content: str | bytes):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=f"holds a {name} that tgc did not write; choose another folder, as in"):
        RunFolder(tmp_path).create()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_begins_anew_where_one_was_killed_before_its_first_checkpoint(tmp_path: Path):
    folder = RunFolder(tmp_path)
    for _ in range(3):
        folder.create()
        folder.write_config(TrainingConfig.of(steps=7))
        folder.write_environment({}, step=0)
        folder.timing.touch()


def test_what_is_empty_is_nothing(tmp_path: Path):
    for name in ("config.toml", "log.jsonl", "report.md"):
        (tmp_path / name).touch()
    RunFolder(tmp_path).create()
