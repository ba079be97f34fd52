"""Commands by several processes: started, stopped, killed and cut off, always with one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.profiles import CI, DEEP
from tinygrad_chat.parallel.joining import SIZES, started_ranks
from tinygrad_chat.parallel.shared_memory import segments_of
from tinygrad_chat.runs.checkpoint import find_checkpoints, step_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ranks are started with mpiexec as on Linux and macOS")
pytest.importorskip("mpi4py", reason="needs the extra mpi")

TGC = [sys.executable, "-m", "tinygrad_chat"]
QUICK = ["--kernels", "numpy"]
"""A process with compiled kernels takes twice as long to start, and ranks are the same with either."""
TINY = ["--model", "bigram", "--context", "8", "--batch-size", "6", "--tokenizer", "bytes", "--quiet", *QUICK]
WITHIN = 60.0
"""Seconds, against ranks that never end; how long it takes is measured by `python -m bench rank_deaths`."""


class Started:
    """`tgc` in ranks, which trains a tiny model if no other `command` is named."""

    def __init__(
        self,
        *arguments: object,
        command: Sequence[str] = ("train", *TINY),
        by: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._stdin = os.pipe()  # which stays open: at its end MPICH's mpiexec may die of SIGPIPE
        self.process = subprocess.Popen(
            [*by, *TGC, *command, *map(str, arguments)],
            stdin=self._stdin[0],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )
        self.seen: set[psutil.Process] = set()

    def ranks(self, count: int) -> list[psutil.Process]:
        """The processes of the ranks, in order, as soon as all are there."""
        while True:
            assert self.process.poll() is None, self.process.communicate()
            ours = [each for each in psutil.Process(self.process.pid).children(recursive=True) if runs_tgc(each)]
            self.seen |= set(ours)
            parents = {each.pid for each in ours}
            found = [each for each in ours if each.ppid() in parents]
            if len(found) == count:
                return sorted(found, key=lambda each: int(each.environ()["PMI_RANK"]))
            time.sleep(0.02)

    def end(self, within: float = WITHIN) -> tuple[int, str]:
        """Its exit code and what it said on standard error, when it and all that it has started have ended."""
        error = self.process.communicate(timeout=2 * WITHIN)[1]
        psutil.wait_procs(list(self.seen), timeout=within)
        assert not [each for each in self.seen if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        return self.process.returncode, error

    def kill(self) -> None:
        """Kill what is left of it."""
        self.process.kill()
        self.process.communicate()
        for end in self._stdin:
            os.close(end)
        for each in self.seen:
            with contextlib.suppress(psutil.Error):
                each.kill()


def runs_tgc(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[: len(TGC)] == TGC
    except psutil.Error:
        return False


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 50)
    return path


@pytest.fixture
def train(text: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def start(*arguments: object, **options: Any) -> Started:
        started.append(Started("--data", text, "--out", tmp_path / "run", *arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def outcome(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "outcome.json").read_text())


def wait_for_step(folder: Path) -> None:
    """Wait until training goes on."""
    log = folder / "run" / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 2):
        time.sleep(0.02)


LONG = ["--steps", 10**6, "--eval-every", 1000, "--checkpoint-every", 50, "--log-every", 1]


@CI
def test_two_ranks_train_to_the_end_and_leave_what_one_leaves(train: Callable[..., Started], tmp_path: Path):
    assert train("--ranks", 2, "--steps", 5, "--eval-every", 5).end() == (0, "")
    assert outcome(tmp_path)["outcome"] == "finished"
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment[0]["ranks"] == 2


@CI
def test_other_ranks_write_files_on_request(train: Callable[..., Started], tmp_path: Path):
    assert train("--ranks", 2, "--steps", 5, "--rank-logs", tmp_path / "logs").end() == (0, "")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["rank-1.log"]
    said = (tmp_path / "logs" / "rank-1.log").read_text()
    assert re.fullmatch(r"1 step in \d+\.\d s, \d+\.\d s of them in communication\n", said)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=DEEP), pytest.param(1, marks=CI)])
def test_a_rank_that_is_killed_ends_all_with_one_line(train: Callable[..., Started], tmp_path: Path, victim: int):
    started = train("--ranks", 2, *LONG)
    ranks = started.ranks(2)
    wait_for_step(tmp_path)
    segments = [segment for rank in ranks for segment in segments_of(str(rank.pid))]
    ranks[victim].kill()
    code, error = started.end()
    assert not any(map(Path.exists, segments))
    assert code == 3
    assert error.count("\n") == 1, error
    if victim:
        assert error.startswith(f"tgc: rank 1 (process {ranks[1].pid} on ")
        assert f"resume with: tgc train --resume --out {tmp_path / 'run'}" in error
        assert outcome(tmp_path)["outcome"] == "failed"
    else:
        assert error.startswith("tgc: rank 0 has ended")
    assert not list((tmp_path / "run").rglob("*.partial*"))
    saved = step_of(find_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert train("--resume", "--steps", saved + 1).end() == (0, "")


@pytest.mark.parametrize(
    ("number", "to"),
    [
        pytest.param(signal.SIGINT, None, marks=CI),
        pytest.param(signal.SIGTERM, 0, marks=DEEP),
        pytest.param(signal.SIGUSR1, None, marks=DEEP),
        pytest.param(signal.SIGTERM, 1, marks=CI),
    ],
    ids=str,
)
def test_a_signal_to_any_rank_stops_all_with_a_checkpoint(
    train: Callable[..., Started], tmp_path: Path, number: int, to: int | None
):
    started = train("--ranks", 2, *LONG)
    ranks = started.ranks(2)
    wait_for_step(tmp_path)
    os.kill(started.process.pid if to is None else ranks[to].pid, number)
    assert started.end() == (128 + number, "")
    found = outcome(tmp_path)
    assert found["outcome"] == "interrupted"
    assert (tmp_path / "run" / "checkpoints" / f"step-{found['step']:06}").is_dir()


@DEEP
@pytest.mark.parametrize("to", [0, 2])
def test_a_lost_rank_is_named_though_mpiexec_signals_that_it_is_lost(
    train: Callable[..., Started], tmp_path: Path, to: int
):
    started = train("--ranks", 3, *LONG)
    ranks = started.ranks(3)
    wait_for_step(tmp_path)
    ranks[1].kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        while started.process.poll() is None:
            time.sleep(0.02)
            ranks[to].send_signal(signal.SIGUSR1)
    code, error = started.end()
    assert (code, error.count("\n")) == (3, 1), error
    assert error.startswith(f"tgc: rank 1 (process {ranks[1].pid} on ")


@DEEP
def test_a_rank_that_is_stopped_is_missed_and_killed(train: Callable[..., Started], tmp_path: Path):
    started = train("--ranks", 2, *LONG)
    ranks = started.ranks(2)
    wait_for_step(tmp_path)
    ranks[1].suspend()
    code, error = started.end()
    assert (code, error.count("\n")) == (3, 1)
    assert error.startswith(f"tgc: rank 1 (process {ranks[1].pid} on ")
    assert "has not responded" in error


@CI
def test_ranks_end_when_who_started_them_is_killed(train: Callable[..., Started], tmp_path: Path):
    started = train("--ranks", 2, *LONG)
    started.ranks(2)
    wait_for_step(tmp_path)
    started.process.kill()
    started.end()
    assert outcome(tmp_path)["outcome"] == "interrupted"


@CI
def test_a_mistake_is_said_once(train: Callable[..., Started]):
    code, error = train("--ranks", 7, "--steps", 1).end()
    assert (code, error) == (2, "tgc: 7 ranks: expected a --batch-size of at least one row per rank, received 6\n")


@CI
def test_ranks_with_other_arguments_are_refused(text: Path, tmp_path: Path):
    mpiexec = [str(Path(sys.executable).parent / "mpiexec")]
    one = [*TGC, "train", *TINY, "--data", str(text), "--out", str(tmp_path / "run"), "--steps", "1", "--lr"]
    done = subprocess.run(
        [*mpiexec, "-n", "1", *one, "0.1", ":", "-n", "1", *one, "0.2"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tgc: rank 1: expected the arguments to be that of rank 0, train --model bigram")


@pytest.mark.parametrize("name", SIZES)
def test_who_started_the_ranks_says_how_many_there_are(name: str):
    assert started_ranks({name: "4", "SLURM_NTASKS": "9"}) == 4
    assert started_ranks({name: ""}) == 1
