"""The folder of a run that goes on from a checkpoint of an earlier version, or from the last whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygrad_chat.errors import CheckpointError
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
    assert said == [f"{checkpoint_path(folder.checkpoints, 9)}: the checkpoint is damaged; passed over"]
