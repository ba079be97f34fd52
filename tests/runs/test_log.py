"""A log that lies: whatever became of its lines, what is missing is said, and what was found is kept."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygrad_chat.errors import FormatError, StorageError
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.log import Mark, Marks
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.schema import checked
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

LINES = 6


def log_in(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.create()
    for step in range(LINES):
        folder.append({"step": step, "loss": step / 7}, {"step": step, "seconds": 0.5 * step})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return log_in(tmp_path)


def lines_of(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


Damage = Callable[[list[bytes]], bytes]
UP_TO = f"of its {LINES} lines up to step {LINES} are missing"
LOSING: dict[str, tuple[Damage, str]] = {
    "cut at the end": (lambda lines: b"".join(lines[:4]), f"2 {UP_TO}: those of steps 4 to 5"),
    "cut within a line": (lambda lines: b"".join(lines)[:-9], f"1 {UP_TO}: that of step 5"),
    "cut in the middle": (lambda lines: b"".join(lines[:2] + lines[4:]), f"2 {UP_TO}: those of steps 2 to 3"),
    "zeros over a line": (
        lambda lines: b"".join([*lines[:3], b"\0" * len(lines[3]), *lines[4:]]),
        f"1 {UP_TO}: that of step 3",
    ),
    "empty": (lambda lines: b"", f"6 {UP_TO}: those of steps 0 to 5"),
    "garbage": (lambda lines: b"\xff{[" * 99, f"6 {UP_TO}: those of steps 0 to 5"),
    "a number changed": (
        lambda lines: b"".join(lines).replace(b"0.5", b"0.4").replace(b"0.28", b"0.27"),
        f"its {LINES} lines up to step {LINES} are not the ones that were written",
    ),
}
ADDING: dict[str, Damage] = {
    "each line twice": lambda lines: b"".join(line * 2 for line in lines),
    "some lines twice": lambda lines: b"".join(lines[:3] + lines[1:]),
    "zeros before a line": lambda lines: b"".join([*lines[:3], b"\0" * 512, *lines[3:]]),
    "a line that is none": lambda lines: b"".join([*lines[:3], b"what is this?\n", *lines[3:]]),
}


@pytest.mark.parametrize("which", ["log", "timing"])
@pytest.mark.parametrize("damage", LOSING)
def test_lines_that_are_lost_or_changed_are_named_and_the_file_kept(folder: RunFolder, damage: str, which: str):
    file: Path = getattr(folder, which)
    marks, found = folder.lines.marks(), LOSING[damage][0](lines_of(file.read_bytes()))
    file.write_bytes(found)
    resumed = RunFolder(folder.path)
    aside = file.with_name(f"{file.stem}-damaged.jsonl")
    kept = f"; resuming keeps this file as {aside.name}" if found else ""
    assert resumed.lines.problems(marks, LINES) == [f"{file}: {LOSING[damage][1]}{kept}"]
    assert file.read_bytes() == found  # nothing is changed by looking
    assert resumed.lines.go_on(marks, LINES)
    assert not found or aside.read_bytes() == found
    *left, note = map(json.loads, lines_of(file.read_bytes()))
    assert note == {"step": LINES, "damaged": LOSING[damage][1]}
    assert all(record["step"] < LINES for record in left)
    assert RunFolder(folder.path).lines.problems(resumed.lines.marks(), LINES) == []


@pytest.mark.parametrize("damage", ADDING)
def test_lines_that_stand_there_twice_or_are_none_are_taken_out(folder: RunFolder, damage: str):
    whole, marks = folder.log.read_bytes(), folder.lines.marks()
    folder.log.write_bytes(found := ADDING[damage](lines_of(whole)))
    assert RunFolder(folder.path).lines.go_on(marks, LINES)
    assert folder.log.read_bytes() == whole
    assert folder.log.with_name("log-damaged.jsonl").read_bytes() == found


def test_what_came_after_the_checkpoint_is_cut_without_a_word(folder: RunFolder):
    whole, marks = folder.log.read_bytes(), folder.lines.marks()
    folder.append({"step": 6, "loss": 1.0}, {"step": 6, "seconds": 1.0})
    folder.log.write_bytes(folder.log.read_bytes() + whole + b'{"step": 7, "lo')
    resumed = RunFolder(folder.path)
    assert resumed.lines.problems(marks, LINES) == []
    assert not resumed.lines.go_on(marks, LINES)
    assert resumed.log.read_bytes() == whole
    assert resumed.lines.marks() == marks


def test_a_log_that_is_gone_is_missed(folder: RunFolder):
    marks = folder.lines.marks()
    folder.log.rename(folder.log.with_suffix(".old"))
    resumed = RunFolder(folder.path)
    assert resumed.lines.problems(marks, LINES) == [f"{folder.log}: is missing, and so are its 6 lines up to step 6"]
    assert resumed.lines.go_on(marks, LINES)
    assert [record["step"] for record in resumed.records()] == [LINES]


def test_lines_without_any_checkpoint_are_kept(folder: RunFolder):
    whole = folder.log.read_bytes()
    resumed = RunFolder(folder.path)
    assert resumed.lines.problems(None, 0)[0].startswith(
        f"{folder.log}: has 6 lines, but there is no checkpoint; resuming"
    )
    resumed.lines.go_on(None, 0)
    assert resumed.records() == []
    assert folder.log.with_name("log-damaged.jsonl").read_bytes() == whole


def test_each_damaged_file_is_kept_under_a_name_of_its_own(folder: RunFolder):
    marks = folder.lines.marks()
    for text in (b"one", b"two", b"three"):
        folder.log.write_bytes(text)
        folder.lines.go_on(marks, LINES)
    kept = sorted(folder.path.glob("log-damaged*"))
    assert {file.name: file.read_bytes() for file in kept} == {
        "log-damaged.jsonl": b"one",
        "log-damaged-2.jsonl": b"two",
        "log-damaged-3.jsonl": b"three",
    }


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read anything")
def test_a_log_that_cannot_be_read_is_not_taken_for_a_damaged_one(folder: RunFolder):
    folder.log.chmod(0)
    with pytest.raises(StorageError, match=r"log.jsonl: cannot be read: no permission"):
        folder.lines.go_on(folder.lines.marks(), LINES)


def test_nor_is_one_that_is_no_file(folder: RunFolder):
    marks = folder.lines.marks()
    folder.log.unlink()
    folder.log.mkdir()
    with pytest.raises(StorageError, match=r"log.jsonl: cannot be read: expected a file, received a folder"):
        folder.lines.problems(marks, LINES)


def test_a_rollback_s_mark_leads_there_from_the_log_before_it_and_after_it(folder: RunFolder):
    marks: Marks = folder.lines.marks()
    folder.append({"step": 6, "loss": 1.0}, {"step": 6, "seconds": 1.0})
    expected = folder.log.read_bytes().splitlines(keepends=True)[:LINES]
    for failed in (8, 7):
        record = {"step": 6, "rolled_back_from": failed}
        expected.append(json.dumps(record).encode() + b"\n")
        wanted = folder.lines.marks_of_rollback(marks, 6, record, {**record, "seconds": 1.5})
        resumed = folder
        for _ in range(2):  # the second time it has been done
            resumed = RunFolder(folder.path)
            assert resumed.lines.problems(wanted, 6) == []
            resumed.lines.go_on(wanted, 6)
            assert resumed.log.read_bytes() == b"".join(expected)
        folder = resumed
        folder.append({"step": 6, "loss": 2.0}, {"step": 6, "seconds": 2.0})


MARK: dict[str, Any] = {"lines": 2, "sha256": "ab", "then": []}


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        {},
        {**MARK, "lines": -1},
        {**MARK, "lines": True},
        {**MARK, "lines": 1e9},
        {**MARK, "sha256": 3},
        {**MARK, "then": "x"},
        {**MARK, "then": [1]},
        {**MARK, "then": [{}]},
        {**MARK, "then": [{"step": 1, "x": float("nan")}]},
    ],
    ids=str,
)
def test_a_mark_that_cannot_be_is_refused(saved: Any):
    with pytest.raises(FormatError, match=r"^state\.json: "):
        checked(saved, Mark, source="state.json")


# --- in runs


def finish(run: Run, *, stop_after: int = 99) -> None:
    for _ in train(run, should_stop=lambda: run.progress.step >= stop_after):
        pass


def test_a_run_says_what_its_log_has_lost_once_and_goes_on(start: Callable[..., Run]):
    whole, run = start("whole"), start("damaged")
    finish(whole)
    finish(run, stop_after=4)
    folder = run.folder
    folder.log.write_bytes(b"".join(lines_of(folder.log.read_bytes())[2:]))
    said: list[str] = []
    finish(resume_run(folder.path, {}, say=said.append), stop_after=4)  # no further step, and no further checkpoint
    kept = "resuming keeps this file as log-damaged.jsonl"
    assert said == [f"{folder.log}: 2 of its 4 lines up to step 4 are missing: those of steps 0 to 1; {kept}"]
    finish(resume_run(folder.path, {}, say=said.append))
    assert len(said) == 1
    assert [record["step"] for record in folder.records()] == [2, 3, 4, 4, 5, 6]
    assert folder.log.read_bytes().endswith(b"".join(lines_of(whole.folder.log.read_bytes())[4:]))


def test_a_finished_run_whose_last_line_is_gone_evaluates_once_more(start: Callable[..., Run]):
    run = start()
    finish(run)
    whole = run.folder.log.read_bytes()
    run.folder.log.write_bytes(b"".join(lines_of(whole)[:-1]))
    resumed = resume_run(run.folder.path, {})
    assert not resumed.finished
    finish(resumed)
    assert run.folder.log.read_bytes() == whole
    assert resume_run(run.folder.path, {}).finished


def test_a_run_of_a_version_without_marks_goes_on_as_ever(start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    whole, run = start("whole"), start("old")
    finish(whole)
    original = json.dumps

    def as_before(value: Any, **options: Any) -> str:
        if isinstance(value, dict) and "progress" in value:
            del value["log"], value["progress"]["rollbacks"]
        return original(value, **options)

    with monkeypatch.context() as patch:
        patch.setattr("tinygrad_chat.runs.checkpoint.json.dumps", as_before)
        finish(run, stop_after=4)
    assert TrainingState.load(run.folder.newest_checkpoint()).log == {}
    said: list[str] = []
    resumed = resume_run(run.folder.path, {}, say=said.append)
    finish(resumed)
    assert said == []
    assert resumed.folder.log.read_bytes() == whole.folder.log.read_bytes()


@pytest.mark.profile("ci")
def test_a_log_of_zeros_takes_no_memory(folder: RunFolder):
    """A crash of the file system may leave a file as long as it was meant to be, of nothing."""
    marks = folder.lines.marks()
    with folder.log.open("ab") as file:
        file.truncate(100 << 20)
    tracemalloc.start()
    try:
        assert not RunFolder(folder.path).lines.problems(marks, LINES)
        assert len(RunFolder(folder.path).records()) == LINES
        assert RunFolder(folder.path).lines.go_on(marks, LINES) is False
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20
    assert folder.lines.problems(marks, LINES) == []
    assert folder.log.stat().st_size < 1000
