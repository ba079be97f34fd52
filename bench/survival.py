"""Runs that survive: kills, full and read-only disks, damaged files. Every case must end as if nothing had happened.

A case counts as survived when the newest whole checkpoint opens, a damaged one is named and passed over, training goes
on without a traceback to the very bits of a run that was left alone, and no half file is left.

kills       `tgc train` as a process that writes a checkpoint after every step, ended by SIGKILL at random moments
calls       one training run, killed before each single call to the operating system, and once more failing at each
rollbacks   the same of a run that diverges, rolls back and skips spikes
full disk   a tmpfs of several sizes fills up; then it grows and the run is resumed (Linux with user namespaces)
read-only   the run's folder cannot be written; then it can (the same)
damage      every file of a run cut short at several places, and bits of it flipped (a lock that holds more than
            a number is named and taken away)
memory      20,000 steps and 2,000 evaluations: how much resident memory grows
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil

from bench.faults import at_system_call, count_system_calls, fail, kill_at_system_call
from bench.record import RESULTS, write_result
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.errors import DivergedError, StorageError, TinygradChatError
from tinygrad_chat.files.locks import LOCK
from tinygrad_chat.runs.checkpoint import checkpoint_path, find_checkpoints, load_newest
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

NAME = "survival"
TEXT = "The quick brown fox jumps over the lazy dog.\n" * 40
TINY: dict[str, Any] = {"layers": 1, "heads": 2, "width": 16, "context": 16, "batch_size": 4, "warmup": 2}
DIVERGING: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 2000.0,
    "clip": 0.0,
    "warmup": 0,
    "on_nan": "rollback",
    "skip_spikes": 1.5,
    "seed": 519,
    "steps": 8,
    "eval_every": 4,
    "checkpoint_every": 2,
    "log_every": 1,
    "keep_checkpoints": 1,
}
JUDGED_EARLY = 3  # batches after which so short a run skips updates
PARTS = ("kills", "calls", "rollbacks", "full disk", "read-only", "damage", "memory")
MAX_GROWTH = 0.02  # of resident memory
Outcome = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to try (all)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20_000, help="of the run whose memory is watched")
    parser.add_argument("--seed", type=int, default=1, help="decides the moments and the places of the damage")


def measure(arguments: argparse.Namespace) -> None:
    chance = random.Random(arguments.seed)
    parts: dict[str, Callable[[Path], Outcome]] = {
        "kills": lambda folder: _kills(folder, arguments.kills, chance),
        "calls": lambda folder: _calls(folder, _config(folder, steps=3, eval_every=2, checkpoint_every=1, log_every=1)),
        "rollbacks": _rollbacks,
        "full disk": _full_disk,
        "read-only": _read_only,
        "damage": lambda folder: _damage(folder, chance),
        "memory": lambda folder: watch_memory(folder, arguments.steps),
    }
    stored = RESULTS / f"{NAME}.json"
    before = json.loads(stored.read_text()) if stored.exists() else {}
    results: dict[str, Outcome] = {name: before[name] for name in PARTS if name in before}  # of other calls, perhaps
    for name in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "text.txt").write_text(TEXT)
            began = time.perf_counter()
            results[name] = parts[name](Path(folder))
            results[name]["seconds"] = round(time.perf_counter() - began, 1)
        print(
            f"{name}: {json.dumps({key: value for key, value in results[name].items() if key != 'curve'})}", flush=True
        )
    command = f"python -m bench survival --kills {arguments.kills} --steps {arguments.steps} --seed {arguments.seed}"
    print(f"written: {write_result(NAME, command, {'text_bytes': len(TEXT), 'settings': TINY, **results})}")
    lost = [name for name, result in results.items() if result.get("objections")]
    if results.get("memory", {"growth": 0})["growth"] >= MAX_GROWTH:
        lost.append(f"memory grew by more than {MAX_GROWTH:.0%}")
    if lost:
        raise SystemExit(f"not survived: {', '.join(lost)}")


class Tally:
    """Counts cases, and keeps what went wrong in words."""

    def __init__(self) -> None:
        self.cases = 0
        self.objections: list[str] = []

    def outcome(self, **more: Any) -> Outcome:
        """Return the counts, ready for JSON."""
        return {
            "cases": self.cases,
            "survived": self.cases - len(self.objections),
            "objections": self.objections,
            **more,
        }

    @contextlib.contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Count one case, survived unless it raises."""
        self.cases += 1
        try:
            yield
        except Exception as error:  # whatever it is: that is the finding
            self.objections.append(f"{name}: {type(error).__name__}: {error}")


def _config(folder: Path, **settings: Any) -> TrainingConfig:
    return resolve({**TINY, "data": str(folder / "text.txt"), **settings})


def _exhaust(run: Run) -> None:
    with contextlib.suppress(DivergedError):  # of one that gets on by no rollback: that, too, is to end the same
        for _ in train(run):
            pass


def _expect_equal(run_folder: Path, whole: Run) -> None:
    """Raise where a run's log or last weights are not those of the run that was left alone, or a half file is left."""
    mine = TrainingState.load(checkpoint_path(run_folder / "checkpoints", whole.progress.step)).weights
    for name, array in whole.model.parameters().state().items():
        if not np.array_equal(array, mine[name]):
            raise AssertionError(f"{name} differs")
    if (run_folder / "log.jsonl").read_bytes() != whole.folder.log.read_bytes():
        raise AssertionError("the log differs")
    left = [str(file.relative_to(run_folder)) for file in run_folder.rglob(".*") if file.name != ".lock"]
    if left:
        raise AssertionError(f"left behind: {left}")


# --- kills


def _kills(folder: Path, wanted: int, chance: random.Random) -> Outcome:
    config = _config(folder, steps=200, eval_every=20, checkpoint_every=1, log_every=1)
    whole = start_run(config, folder / "whole")
    _exhaust(whole)
    tally, kills, while_writing = Tally(), 0, 0
    usual = _seconds_of_a_run(folder, config)
    while kills < wanted:
        path = folder / f"killed-{tally.cases}"
        with tally.case(path.name):
            while True:
                resume = (path / "config.toml").exists()
                code, errors = _train_process(config, path, resume=resume, kill_after=chance.uniform(0.1, 0.7) * usual)
                if "Traceback" in errors:
                    raise AssertionError(errors.strip().splitlines()[-1])
                if code == 0:
                    break
                if code != -signal.SIGKILL:
                    raise AssertionError(f"exit code {code}: {errors.strip()}")
                kills += 1
                while_writing += any(path.rglob(".*.tgc-partial"))
                damaged: list[str] = []
                load_newest(path / "checkpoints", TrainingState.load, say=damaged.append)
                if damaged:
                    raise AssertionError(f"after a kill: {damaged}")
            _expect_equal(path, whole)
        shutil.rmtree(path)
    return tally.outcome(kills=kills, kills_while_a_file_was_half_written=while_writing)


def _flags(config: TrainingConfig, path: Path, *, resume: bool) -> list[str]:
    flags = ["--out", str(path)]
    if resume:
        return [*flags, "--resume"]
    names = [*TINY, "data", "steps", "eval_every", "checkpoint_every", "log_every"]
    pairs = {f"--{name.replace('_', '-')}": config.settings()[name] for name in names}
    return flags + [text for flag, value in pairs.items() if value is not None for text in (flag, str(value))]


def _train_process(config: TrainingConfig, path: Path, *, resume: bool, kill_after: float | None) -> tuple[int, str]:
    command = [sys.executable, "-m", "tinygrad_chat", "train", *_flags(config, path, resume=resume)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    return process.returncode, errors


def _seconds_of_a_run(folder: Path, config: TrainingConfig) -> float:
    began = time.perf_counter()
    _train_process(config, folder / "timed", resume=False, kill_after=None)
    return time.perf_counter() - began


# --- each call to the operating system


def _calls(folder: Path, config: TrainingConfig) -> Outcome:
    whole = start_run(config, folder / "whole")
    calls = count_system_calls(lambda: _exhaust(whole))
    tally = Tally()
    for number in range(1, calls + 1):
        for fault in (_killed, _failing):
            path = folder / fault.__name__
            with tally.case(f"{fault.__name__} at call {number} of {calls}"):
                run = start_run(config, path)
                fault(run, number)
                damaged: list[str] = []
                load_newest(path / "checkpoints", TrainingState.load, say=damaged.append)
                if damaged:
                    raise AssertionError(f"damaged: {damaged}")
                _exhaust(resume_run(path, {}) if run.folder.config.exists() else start_run(config, path))
                _expect_equal(path, whole)
            shutil.rmtree(path)
    records = whole.folder.records()
    return tally.outcome(
        calls=calls,
        rollbacks=sum("rolled_back_from" in record for record in records),
        skipped_spikes=sum("skipped_spike" in record for record in records),
    )


def _rollbacks(folder: Path) -> Outcome:
    with mock.patch("tinygrad_chat.runs.recent_losses.WINDOW", JUDGED_EARLY):
        return _calls(folder, _config(folder, **DIVERGING))


def _killed(run: Run, number: int) -> None:
    kill_at_system_call(number, lambda: _exhaust(run))


def _failing(run: Run, number: int) -> None:
    # `tgc` gives an OSError that nobody explained one line, as it does a StorageError.
    with contextlib.suppress(TinygradChatError, OSError), at_system_call(number, fail):
        _exhaust(run)


# --- disks


def _full_disk(folder: Path) -> Outcome:
    return _on_a_small_disk(folder, [(f"size={kib}k", "size=64m") for kib in range(60, 300, 20)])


def _read_only(folder: Path) -> Outcome:
    return _on_a_small_disk(folder, [("size=64m,ro", "size=64m,rw")])


def _on_a_small_disk(folder: Path, options: Sequence[tuple[str, str]]) -> Outcome:
    """For each pair train on a tmpfs mounted with its first options, then go on when remounted with its second."""
    config = _config(folder, steps=12, eval_every=4, checkpoint_every=1, log_every=1)
    whole = start_run(config, folder / "whole")
    _exhaust(whole)
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", disk], capture_output=True).returncode != 0:
        return {"skipped": "this system lets no user mount a tmpfs"}
    tally, filled = Tally(), 0
    for tight, roomy in options:
        path = disk / "run"
        first, again = _flags(config, path, resume=False), _flags(config, path, resume=True)
        script = f"""
            mount -t tmpfs -o {tight} x {disk}
            {sys.executable} -m tinygrad_chat train {" ".join(first)} > /dev/null 2> {folder}/errors
            echo $? > {folder}/code
            mount -o remount,{roomy} {disk}
            if [ -e {path}/config.toml ]; then more="{" ".join(again)}"; else more="{" ".join(first)}"; fi
            {sys.executable} -m tinygrad_chat train $more > /dev/null 2>> {folder}/errors || exit 1
            cp -r {path} {folder}/saved
        """
        with tally.case(tight):
            done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)
            code, errors = int((folder / "code").read_text()), (folder / "errors").read_text()
            if done.returncode != 0 or code not in (0, 3) or "Traceback" in errors:
                raise AssertionError(f"exit codes {code}, {done.returncode}: {errors.strip()} {done.stderr.strip()}")
            if code == 3 and len(errors.strip().splitlines()) != 1:
                raise AssertionError(f"expected one line: {errors}")
            filled += code == 3
            _expect_equal(folder / "saved", whole)
        shutil.rmtree(folder / "saved", ignore_errors=True)
    return tally.outcome(stopped_with_one_line=filled)


# --- damage


def _damage(folder: Path, chance: random.Random) -> Outcome:
    config = _config(folder, steps=6, eval_every=2, log_every=1, keep_checkpoints=3)
    whole = start_run(config, folder / "whole")
    _exhaust(whole)
    files = [file.relative_to(whole.folder.path) for file in whole.folder.path.rglob("*") if file.is_file()]
    tally, newest_damaged, locks_refused = Tally(), 0, 0
    for file in sorted(files):
        content = (whole.folder.path / file).read_bytes()
        cuts = sorted({0, len(content) // 3, len(content) // 2, max(len(content) - 1, 0)})
        flips = sorted({chance.randrange(8 * len(content)) for _ in range(16)}) if content else []
        damages = {f"cut to {length} bytes": content[:length] for length in cuts if length < len(content)}
        damages |= {f"bit {bit} flipped": _flipped(content, bit) for bit in flips}
        for what, damaged in damages.items():
            with tally.case(f"{file} {what}"):
                path = folder / "damaged"
                shutil.copytree(whole.folder.path, path)
                (path / file).write_bytes(damaged)
                said: list[str] = []
                run = resume_run(path, {"steps": 8}, say=said.append)
                if file.parts[0] == "checkpoints" and file.parts[1] == find_checkpoints(path / "checkpoints")[-1].name:
                    newest_damaged += 1
                    passed_over = [line for line in said if line.endswith("; skipped")]
                    if len(passed_over) != 1 or file.parts[1] not in passed_over[0]:
                        raise AssertionError(f"expected to hear of {file.parts[1]}, heard {said}")
                try:
                    _exhaust(run)
                except StorageError as error:  # what holds more than a number could be anybody's file: it stays
                    if f"{path / LOCK}: is not a lock file" not in str(error) or damaged.isdigit() or not damaged:
                        raise
                    (path / LOCK).unlink()
                    locks_refused += 1
                    run = resume_run(path, {"steps": 8})
                    _exhaust(run)
                if run.progress.step != 8:
                    raise AssertionError(f"ended at step {run.progress.step}")
                TrainingState.load(checkpoint_path(path / "checkpoints", 8))
            shutil.rmtree(folder / "damaged", ignore_errors=True)
    return tally.outcome(
        files=len(files),
        newest_checkpoint_damaged_named_and_passed_over=newest_damaged,
        damaged_locks_named_and_taken_away=locks_refused,
    )


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --- memory


def watch_memory(folder: Path, steps: int) -> Outcome:
    """Train a tiny model with an evaluation every ten steps; return how its process's resident memory grew after the
    first tenth of them."""
    config = _config(folder, steps=steps, eval_every=10, checkpoint_every=steps, log_every=10)
    path = folder / "run"
    command = [sys.executable, "-m", "tinygrad_chat", "train", *_flags(config, path, resume=False)]
    curve: list[dict[str, int]] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            step = _last_step(path / "log.jsonl")
            if len(curve) * steps // 20 <= step < steps:  # after the last comes the report, which loads what it needs
                with contextlib.suppress(psutil.Error):  # it has just ended
                    curve.append({"step": step, "resident_bytes": watched.memory_info().rss})
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    evaluations = len(list((path / "samples").iterdir()))
    start = next(point for point in curve if point["step"] >= steps // 10)["resident_bytes"]
    growth = max(point["resident_bytes"] for point in curve) / start - 1
    return {
        "steps": _last_step(path / "log.jsonl"),
        "evaluations": evaluations,
        "growth": round(growth, 5),
        "curve": curve,
    }


def _last_step(log: Path) -> int:
    """Return the step of a log's last whole line; 0 before there is one."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 1000))
        lines = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
    return json.loads(lines[-1])["step"] if lines else 0
