"""Death and failure at each single call to the operating system: what is on disk is whole, and training goes on."""

from __future__ import annotations

import gc
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench.faults import at_system_call, count_system_calls, fail, kill_at_system_call
from tests.profiles import DEEP
from tinygrad_chat.errors import StorageError
from tinygrad_chat.files import remove_folder_atomic, remove_partials, write_atomic, write_folder_atomic
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

pytestmark = pytest.mark.profile("ci")

Work = Callable[[Path], None]

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot copy a process")


def over_a_file(folder: Path) -> None:
    write_atomic(folder / "target", b"new")


def a_new_folder(folder: Path) -> None:
    write_folder_atomic(folder / "target", {"a": b"new", "b": b"new"})


def over_a_folder(folder: Path) -> None:
    write_folder_atomic(folder / "old", {"a": b"new", "b": b"new"})


def away_with_a_folder(folder: Path) -> None:
    remove_folder_atomic(folder / "old")


WORKS = [over_a_file, a_new_folder, over_a_folder, away_with_a_folder]


@pytest.fixture(autouse=True)
def leaks_of_open_end_here() -> Iterator[None]:
    """Where the call inside `open` fails, Python leaves the file to its collector, which complains when it comes by."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        (tmp_path / "here" / "old").mkdir(parents=True)
        for name in ("a", "b"):
            (tmp_path / "here" / "old" / name).write_bytes(b"old")
        (tmp_path / "here" / "target").unlink(missing_ok=True)
        return tmp_path / "here"

    return make


def states(folder: Path) -> dict[str, set[bytes]]:
    """What stands there under its own name: for each file or folder the contents found in it."""
    return {
        path.name: {file.read_bytes() for file in ([path] if path.is_file() else path.iterdir())}
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


@needs_fork
@pytest.mark.parametrize("work", WORKS)
def test_a_process_killed_at_any_call_leaves_old_or_new_and_never_half(work: Work, fresh: Callable[[], Path]):
    folder = fresh()
    before = states(folder)
    total = count_system_calls(lambda: work(folder))
    after = states(folder)
    assert total > 4
    assert before != after
    for number in range(1, total + 1):
        folder = fresh()
        assert kill_at_system_call(number, partial(work, folder))
        for name, contents in states(folder).items():
            assert contents in (before.get(name), after.get(name)), (number, name)
        remove_partials(folder)
        assert list(folder.glob(".*")) == []
        if "old" in states(folder) or work is not away_with_a_folder:
            work(folder)
        assert states(folder) == after


def failure(work: Callable[[], None]) -> str | None:
    try:
        work()
    except StorageError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file whose close() was to fail
@pytest.mark.parametrize("work", WORKS)
def test_a_call_that_fails_is_one_error_and_leaves_nothing_half_written(work: Work, fresh: Callable[[], Path]):
    folder = fresh()
    before = states(folder)
    total = count_system_calls(lambda: work(folder))
    after = states(folder)
    failures = 0
    for number in range(1, total + 1):
        folder = fresh()
        with at_system_call(number, fail):
            message = failure(partial(work, folder))
        assert message is None or "the disk is full; free some space" in message
        failures += message is not None
        for name, contents in states(folder).items():
            assert contents in (before.get(name), after.get(name)), (number, name)
    assert failures >= 1


def exhaust(run: Run) -> None:
    for _ in train(run):
        pass


@needs_fork
@pytest.mark.parametrize("first", [1, *(pytest.param(first, marks=DEEP) for first in range(11, 60, 10))])
def test_training_killed_at_a_call_goes_on_as_if_it_never_had_been(
    start: Callable[..., Run], tmp_path: Path, first: int
):
    """Here at every sixtieth call from `first` on; `python -m bench survival` takes them all."""
    whole = start("whole", steps=2, eval_every=1, keep_checkpoints=1)
    exhaust(whole)
    exhaust(start("again", steps=2, eval_every=1, keep_checkpoints=1))  # what is only done at first has been done then
    run = start("counted", steps=2, eval_every=1, keep_checkpoints=1)
    total = count_system_calls(partial(exhaust, run))
    assert total > 100
    for number in range(first, total, 60):
        path = tmp_path / f"killed-{number}"
        killed = start_run(run.config, path)
        assert kill_at_system_call(number, partial(exhaust, killed))
        for checkpoint in find_checkpoints(path / "checkpoints"):
            TrainingState.load(checkpoint)
        resumed = resume_run(path, {}) if killed.folder.config.exists() else start_run(run.config, path)
        exhaust(resumed)
        np.testing.assert_array_equal(resumed.model.parameters().data, whole.model.parameters().data)
        assert resumed.folder.log.read_bytes() == whole.folder.log.read_bytes()
        assert [file for file in path.rglob(".*") if file.name != ".lock"] == []
