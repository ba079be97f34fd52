"""The hostile tries: a few of them, and that the verdict on a command sees everything that it is to see."""

from __future__ import annotations

import dataclasses
import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("resource", reason="only POSIX copies a process")  # which these tries do for every command

from bench.hostile import child
from bench.hostile.child import attempt
from bench.hostile.command_lines import random_command_line
from bench.hostile.damage import remove
from bench.hostile.judge import MAX_MEMORY, objections
from bench.hostile.material import Material, make_material
from bench.hostile.parts import PARTS, RESUME, Prepared
from bench.hostile.trial import Trial, Workshop, digest, prepare, usual_memory

SEED = 4
QUICK = {"runs": 8, "weights": 10, "lines": 30}
"""How many tries of each part there are in every run of the tests; `python -m bench hostile` has thousands."""

SLOW = frozenset({"plan", "profile", "ablate"})  # measure the machine, or train several times
TRAINING = 3  # of the quick runs, how many are trained, too


def quick_trials(part: str) -> list[Trial]:
    trials = [Trial(part, number, SEED) for number in range(3 * QUICK[part])]
    quick = [trial for trial in trials if part != "lines" or random_command_line(trial.chance)[0] not in SLOW]
    return quick[: QUICK[part]]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("hostile") / "whole")


@pytest.fixture
def workshop(material: Material, tmp_path: Path) -> Workshop:
    return Workshop(material, tmp_path, {})


@pytest.mark.profile("ci")
def test_every_command_but_a_server_succeeds_when_all_is_whole(material: Material, tmp_path: Path):
    assert {"train", "chat", "eval"} <= set(usual_memory(material, tmp_path, left_out=SLOW))


@pytest.mark.profile("ci")
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("part", PARTS)
def test_no_try_of_the_quick_ones_finds_anything(part: str, half: int, workshop: Workshop):
    looking = dataclasses.replace(workshop, left_out=frozenset({"train"}) if part == "runs" else frozenset())
    trials = [(trial, workshop if number < TRAINING else looking) for number, trial in enumerate(quick_trials(part))]
    results = [shop.attempt(trial) for trial, shop in trials[half::2]]
    assert [(result.trial.command, result.objections) for result in results if result.objections] == []
    assert len(results) == QUICK[part] // 2
    assert all(result.commands for result in results)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("part", PARTS)
def test_a_try_is_the_same_again(part: str, material: Material, tmp_path: Path):
    for number in range(4):
        seen = []
        for _ in range(2):
            prepared = prepare(Trial(part, number, SEED), material, tmp_path / "try")
            seen.append((prepared, digest(tmp_path / "try")))
            remove(tmp_path / "try")
        assert seen[0] == seen[1]


def _sleep() -> None:
    time.sleep(60)


def _take_memory() -> None:
    """Take new pages from the system: freed memory that this process has kept would not be counted again."""
    with mmap.mmap(-1, MAX_MEMORY + (40 << 20)) as taken:
        taken[:: mmap.PAGESIZE] = b"x" * (len(taken) // mmap.PAGESIZE)


def _warn() -> None:
    import warnings

    warnings.warn("careful", RuntimeWarning, stacklevel=1)


def _leave_an_error_behind() -> None:
    class Noisy:
        def __del__(self) -> None:
            raise ValueError("too late")

    Noisy()


FAULTS: dict[str, tuple[str, Callable[[], object]]] = {
    "an error that nobody caught": ("traceback", lambda: [][0]),
    "an error in a finaliser": ("traceback", _leave_an_error_behind),
    "a wait without end": ("hung", _sleep),
    "a crash": ("killed", lambda: os.kill(os.getpid(), 11)),
    "a code that is in no table": ("exit code", lambda: (print("tgc: what?", file=sys.stderr), sys.exit(1))),
    "a code without a word": ("no explanation", lambda: sys.exit(2)),
    "a warning": ("warning", _warn),
    "a long line": ("long line", lambda: print("x" * 401)),
    "megabytes of text": ("flood", lambda: print("x\n" * 600_000)),
    "a title for the terminal": ("control characters", lambda: print("\x1b]0;owned\x07")),
    "text that runs backwards": ("control characters", lambda: print("\u202egpj", file=sys.stderr)),
    "memory": ("memory", _take_memory),
}


def _seen(
    monkeypatch: pytest.MonkeyPatch, folder: Path, main: Callable[[Sequence[str]], Any], longest: float = child.LONGEST
) -> list[str]:
    """Return the kinds of objections to a command that does what `main` does."""
    monkeypatch.setattr(child, "main", main)
    return [kind for kind, _ in objections(attempt(["train"], folder, longest=longest))]


@pytest.mark.profile("ci")
@pytest.mark.parametrize(("kind", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_seen(kind: str, fault: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    longest = 0.3 if kind == "hung" else child.LONGEST
    assert kind in _seen(monkeypatch, tmp_path, lambda arguments: fault(), longest)


def test_a_command_that_refuses_in_one_line_is_not_objected_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(arguments: Sequence[str]) -> None:
        print("tgc: expected a run, received none", file=sys.stderr)
        sys.exit(2)

    assert _seen(monkeypatch, tmp_path, refuse) == []


def test_what_a_command_starts_ends_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def start(arguments: Sequence[str]) -> None:
        print(os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ))

    monkeypatch.setattr(child, "main", start)
    started = int(attempt(["train"], tmp_path).out)
    until = time.monotonic() + 20
    while time.monotonic() < until and Path(f"/proc/{started}").exists() and sys.platform == "linux":
        if Path(f"/proc/{started}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(started, 0)


def _pretend(monkeypatch: pytest.MonkeyPatch, workshop: Workshop, main: Callable[[Sequence[str]], Any]) -> set[str]:
    """Return the kinds of objections to a try whose commands do what `main` does."""
    monkeypatch.setattr(child, "main", main)
    return {kind for kind, _, _ in workshop.attempt(Trial("runs", 0, SEED)).objections}


def test_what_is_written_outside_is_seen(monkeypatch: pytest.MonkeyPatch, workshop: Workshop):
    assert "outside" in _pretend(monkeypatch, workshop, lambda _: Path("outside/empty/x").touch())


def test_a_run_that_is_not_listed_is_seen(monkeypatch: pytest.MonkeyPatch, workshop: Workshop):
    assert "hidden" in _pretend(monkeypatch, workshop, lambda _: None)


def test_a_run_that_does_not_go_on_is_seen(monkeypatch: pytest.MonkeyPatch, workshop: Workshop):
    def fail(arguments: Sequence[str]) -> None:
        print("tgc: no", file=sys.stderr)
        sys.exit(2 if "--resume" in arguments else 0)

    assert "lost" in _pretend(monkeypatch, workshop, fail)


LOGS: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda log: log.write_bytes(b""),
    "broken": lambda log: log.write_bytes(b"\xff" + log.read_bytes()),
    "cut": lambda log: log.write_bytes(log.read_bytes()[:-30]),
}


@pytest.mark.profile("ci")
@pytest.mark.parametrize("damage", LOGS.values(), ids=LOGS)
def test_a_log_that_the_run_has_written_anew_is_not_put_back(
    damage: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, workshop: Workshop
):
    """It would be an old one, under a newer checkpoint: the run has told of the damage, and stopped later."""

    def prepare_both(folder: Path, chance: random.Random) -> Prepared:
        log, sample = Path("runs/a/log.jsonl"), Path("runs/a/samples/step-000004.txt")
        damage(folder / log)
        (folder / sample).mkdir()  # where the run will want to write
        return Prepared([RESUME], damaged=[log, sample])

    monkeypatch.setitem(PARTS, "runs", prepare_both)
    result = workshop.attempt(Trial("runs", 0, SEED))
    assert [command["code"] for command in result.commands] == [3, 0]
    assert result.objections == []


def test_a_fault_of_the_package_is_seen(monkeypatch: pytest.MonkeyPatch, workshop: Workshop):
    monkeypatch.setattr("tinygrad_chat.runs.folder.RunFolder.read_config", lambda folder: {}["width"])
    looking = dataclasses.replace(workshop, left_out=frozenset({"train", "sample"}))
    kinds = {(kind, place) for kind, place, _ in looking.attempt(Trial("runs", 0, SEED)).objections}
    assert any(kind == "traceback" and place.startswith("KeyError in ") for kind, place in kinds)
