"""A run whose folder is moved while it trains stops, saved where the folder is now; where it was, nothing appears."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinygrad_chat.errors import StorageError
from tinygrad_chat.files.holding import HeldFolder
from tinygrad_chat.training import loop
from tinygrad_chat.training.events import Began, Evaluated, Event, Logged, Saved, Stepped
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows moves no folder with an open file in it")

Start = Callable[..., Run]
Move = Callable[[Path], object]


def train_and_move(run: Run, kind: type[Event], step: int, move: Move) -> StorageError:
    """Train, move the folder at an event, and return how that ends."""
    path = run.folder.path

    def train_it() -> None:
        for event in train(run):
            if isinstance(event, kind) and run.progress.step == step and path.exists() and run.folder.path == path:
                move(path)

    with pytest.raises(StorageError) as raised:
        train_it()
    return raised.value


@pytest.mark.parametrize("kind", [Began, Saved, Evaluated, Logged, Stepped])
def test_it_stops_saved_where_it_is_now(start: Start, tmp_path: Path, kind: type[Event]):
    whole, run = start("whole"), start("run")
    for _ in train(whole):
        pass
    path, new = run.folder.path, tmp_path / "elsewhere" / "moved"
    new.parent.mkdir()
    error = train_and_move(run, kind, 3, lambda path: path.rename(new))
    assert not path.exists()
    assert str(error) == (
        f"{path}: was moved to {new} while the run trained there; it has stopped with a checkpoint, resume with: "
        f"tgc train --resume --out {new}"
    )
    assert run.folder.outcome_is("interrupted")
    said: list[str] = []
    resumed = resume_run(new, {}, say=said.append)
    assert said == []
    assert resumed.progress.step in (3, 4)  # the step in which it is noticed is done
    for _ in train(resumed):
        pass
    assert resumed.folder.log.read_bytes() == whole.folder.log.read_bytes()
    np.testing.assert_array_equal(resumed.model.parameters().data, whole.model.parameters().data)


def test_in_the_middle_of_a_step_too(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, original = start(), loop.update
    path, new = run.folder.path, tmp_path / "moved"

    def update(run: Run, fraction: float) -> dict[str, float]:
        if run.progress.step == 4 and path.exists():
            path.rename(new)
        return original(run, fraction)

    monkeypatch.setattr(loop, "update", update)
    with pytest.raises(StorageError, match="was moved to"):
        list(train(run))
    assert not path.exists()
    assert [record["step"] for record in run.folder.records()] == [0, 1, 2, 3, 4]
    assert resume_run(new, {}).progress.step == 5


def test_another_folder_in_its_place_is_left_alone(start: Start, tmp_path: Path):
    def replace(path: Path) -> None:
        path.rename(tmp_path / "moved")
        (path / "checkpoints").mkdir(parents=True)
        (path / "samples").mkdir()

    run = start()
    path = run.folder.path
    assert "was moved to" in str(train_and_move(run, Stepped, 4, replace))
    assert [file for file in path.rglob("*") if file.is_file()] == []
    assert resume_run(tmp_path / "moved", {}).progress.step == 4


def test_a_link_from_its_old_place_changes_nothing(start: Start, tmp_path: Path):
    run = start()
    for event in train(run):
        if isinstance(event, Stepped) and event.step == 4:
            run.folder.path.rename(tmp_path / "moved")
            run.folder.path.symlink_to(tmp_path / "moved")
    assert run.folder.outcome_is("finished")


@pytest.mark.parametrize("how", ["removed", "nobody knows to where"])
def test_where_it_cannot_be_found_it_stops_and_makes_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    if how != "removed":
        monkeypatch.setattr(HeldFolder, "_ask", lambda self: None)
    run = start()
    path = run.folder.path
    move = shutil.rmtree if how == "removed" else lambda path: path.rename(tmp_path / "x")
    error = train_and_move(run, Stepped, 4, move)
    assert str(error) == (
        f"{path}: was moved or removed while a process was using it; put it back; then resume with: "
        f"tgc train --resume --out {path}"
    )
    assert error.exit_code == 3
    assert not path.exists()
