"""A received run whose files are no files, and whose links lead out: nothing waits, and nothing outside is touched."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unreadable import contents
from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.reports.comparison import compare_runs
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.reports.summary import find_runs
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither such links nor such pipes")

Make = Callable[[Path, Path], object]

STEP = "checkpoints/step-000002"
FILES = [
    *(".lock", "config.toml", "environment.json", "log.jsonl", "timing.jsonl", "outcome.json", "products.json"),
    *(f"{STEP}/weights.safetensors", f"{STEP}/optimizer.safetensors", f"{STEP}/state.json", f"{STEP}/SHA256SUMS"),
]
FOLDERS = ["checkpoints", "samples", STEP, "tensorboard", "wandb"]

KINDS: dict[str, Make] = {
    "a pipe": lambda path, outside: os.mkfifo(path),
    "a link to a file": lambda path, outside: path.symlink_to(outside / "precious"),
    "a link to an empty file": lambda path, outside: path.symlink_to(outside / "empty"),
    "a link to nothing": lambda path, outside: path.symlink_to(outside / "new"),
    "a link to a device": lambda path, outside: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, outside: path.symlink_to(path.name),
    "a folder": lambda path, outside: path.mkdir(),
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "step-000009").mkdir(parents=True)
    for name in ("precious", ".begun.tgc-partial", "step-000009/state.json", "step-000001.txt", "config.toml"):
        (folder / name).write_bytes(b"precious")
    (folder / "empty").touch()
    return folder


@pytest.fixture
def run(finished: Run) -> Run:
    """A finished run, as it may have been received."""
    return finished


def put(path: Path, make: Make, outside: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    make(path, outside)


def go_on(run: Run) -> None:
    for _ in train(resume_run(run.folder.path, {"steps": 4})):
        pass


def sample(run: Run) -> None:
    load_model(open_checkpoint(run.folder.path, SavedModel.load, say=lambda line: None))


def compare(run: Run) -> None:
    compare_runs({"a": run.folder.path, "b": run.folder.path.parent})


COMMANDS: list[Callable[[Run], object]] = [
    go_on,
    lambda run: start_run(run.config, run.folder.path),
    lambda run: find_runs(run.folder.path.parent),
    lambda run: write_report(run.folder),
    compare,
    sample,
]


def try_everything(run: Run, outside: Path) -> list[str]:
    """Do all that reads a run; return what it was refused for."""
    before, said = contents(outside), []
    for command in COMMANDS:
        try:
            command(run)
        except TinygradChatError as error:
            said.append(str(error))
    assert contents(outside) == before
    assert not any("\n" in line for line in said)
    return said


EVERYWHERE = ("a pipe", "a link to a file")
ELSEWHERE = sorted(KINDS.keys() - EVERYWHERE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(FILES, EVERYWHERE),
        *itertools.product((".lock", "log.jsonl"), ELSEWHERE),
    ],
)
def test_what_should_be_a_file_and_is_none_is_neither_waited_for_nor_followed(
    run: Run, outside: Path, name: str, kind: str
):
    put(run.folder.path / name, KINDS[kind], outside)
    said = try_everything(run, outside)
    if not name.startswith(STEP):  # such a checkpoint is passed over
        assert "expected a file, received a" in said[0]
        assert name in said[0]


@pytest.mark.parametrize("name", FOLDERS)
def test_what_should_be_a_folder_and_is_none_is_not_followed(run: Run, outside: Path, name: str):
    put(run.folder.path / name, lambda path, outside: path.symlink_to(outside), outside)
    said = try_everything(run, outside)
    assert "expected a folder, received a" in said[0]
    assert name in said[0]


@pytest.mark.parametrize(
    "name", [".log.jsonl.tgc-partial", ".step-000004.tgc-partial", ".x.tgc-partial", "report.html"]
)
def test_what_is_written_or_removed_is_not_what_a_link_leads_to(run: Run, outside: Path, name: str):
    folder = run.folder.checkpoints if "step" in name else run.folder.path
    for target in ("precious", ".", "new"):
        put(folder / name, lambda path, outside, target=target: path.symlink_to(outside / target), outside)
        assert all("holds a run" in line or "compare" in line for line in try_everything(run, outside))
        assert not (folder / name).is_symlink()


def test_a_report_shows_no_text_that_a_link_leads_to(run: Run, outside: Path):
    put(run.folder.samples / "step-000001.txt", KINDS["a link to a file"], outside)
    write_report(run.folder)
    assert [step for step, _ in read_report(run.folder).samples] == [0, 2]
    assert "precious" not in run.folder.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["config.toml", "environment.json", "outcome.json", "log.jsonl", "samples/step-1.txt"])
def test_a_file_that_no_memory_could_hold_is_not_read(run: Run, outside: Path, name: str):
    with (run.folder.path / name).open("ab") as file:
        file.truncate(1 << 43)  # of nothing, which takes no room on the disk
    said = try_everything(run, outside)
    if name in ("environment.json", "log.jsonl"):  # the others are in the checkpoint, too, or only shown
        assert "there is room for" in said[0]


def test_a_run_s_folder_may_itself_be_a_link_that_its_owner_names(run: Run, tmp_path: Path):
    shutil.move(run.folder.path, tmp_path / "elsewhere")
    run.folder.path.symlink_to(tmp_path / "elsewhere")
    go_on(run)
    write_report(run.folder)
    sample(run)
    assert [summary.step for summary in find_runs(run.folder.path.parent)[0]] == [4]
    assert find_checkpoints(tmp_path / "elsewhere" / "checkpoints")[-1].name == "step-000004"


@pytest.mark.parametrize("name", ["log.jsonl", "timing.jsonl"])
def test_a_log_that_has_another_name_elsewhere_is_not_added_to_there(run: Run, outside: Path, name: str):
    log = run.folder.path / name
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))  # as it was at the newest checkpoint
    (outside / "log").hardlink_to(log)
    before = (outside / "log").read_bytes()
    go_on(run)
    assert (outside / "log").read_bytes() == before
    assert log.read_bytes() != before
