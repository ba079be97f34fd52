"""Ranks that were only counted, as by torchrun, find each other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.test_ranks import TGC, TINY, outcome
from tinygrad_chat.errors import RankError, UsageError
from tinygrad_chat.parallel import joining, process_manager
from tinygrad_chat.parallel.process_manager import find_the_others
from tinygrad_chat.parallel.starting import STARTING

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ranks are started as on Linux and macOS")


@pytest.fixture
def port() -> int:
    """A port of which the next is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1] - 1


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets, on one machine."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@pytest.fixture
def started(port: int, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two ranks that train."""
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 50)
    command = [*TGC, "train", *TINY, "--data", str(text), "--out", str(tmp_path / "run"), "--eval-every", "5"]
    ranks = [
        subprocess.Popen(
            [*command, "--steps", "5"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables(rank, 2, port), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    yield ranks
    for each in ranks:
        each.kill()
        each.communicate()


@pytest.mark.profile("ci")
def test_ranks_of_torchrun_train_together(started: list[subprocess.Popen[str]], tmp_path: Path):
    said = [each.communicate(timeout=60)[1] for each in started]
    assert (said, [each.returncode for each in started]) == (["", ""], [0, 0])
    assert outcome(tmp_path)["outcome"] == "finished"
    assert '"ranks": 2' in (tmp_path / "run" / "environment.json").read_text()


@pytest.mark.profile("ci")
def test_a_rank_that_ends_while_they_find_each_other_ends_all(started: list[subprocess.Popen[str]]):
    while not psutil.Process(started[1].pid).net_connections():  # it has come
        time.sleep(0.01)
    started[1].kill()
    started[0].communicate(timeout=STARTING + 10)  # as it takes where they had just found each other
    assert started[0].returncode != 0


def test_ranks_ask_each_other_where_they_are_while_their_start_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Nobody watches yet whether the others live."""
    left: list[float] = []

    class OnlyOne:
        size = 1

        def ranks_here(self) -> list[int]:
            left.append(signal.getitimer(signal.ITIMER_REAL)[0])
            return [0]

    monkeypatch.setattr(joining, "open_mpi", lambda: None)
    monkeypatch.setattr(joining, "MpiCommunicator", lambda mpi: OnlyOne())
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(UsageError, match="MPI knows of 1"), joining.joined_ranks([]):
        pass
    assert 0 < left[0] <= STARTING


@pytest.mark.profile("ci")
def test_a_rank_that_does_not_come_is_named(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process_manager, "GATHERING", 1.0)
    with pytest.raises(RankError, match="rank 1: did not connect within 1 s"):
        find_the_others(variables(0, 3, port))
    assert process_manager._STARTED.pop().wait(timeout=60) == 0


def test_a_port_that_is_taken_is_named(port: int):
    with (
        socket.create_server(("127.0.0.1", port + 1)),
        pytest.raises(UsageError, match=f"port {port + 1}: rank 0 needs it"),
    ):
        find_the_others(variables(0, 2, port))


def test_rank_0_that_does_not_come_is_named(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process_manager, "GATHERING", 0.1)
    with pytest.raises(RankError, match=f"rank 0: cannot be reached at port {port + 1} of 127.0.0.1"):
        find_the_others(variables(1, 2, port))


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_variables_that_are_not_there_are_named(port: int, name: str):
    environment = variables(0, 2, port)
    del environment[name]
    with pytest.raises(UsageError, match=f"WORLD_SIZE=2: expected torchrun's .*, received {name}="):
        find_the_others(environment)


def test_ranks_of_open_mpi_are_told_what_starts_them(monkeypatch: pytest.MonkeyPatch):
    class OpenMpi:
        @staticmethod
        def get_vendor() -> tuple[str, tuple[int, ...]]:
            return "Open MPI", (5, 0, 0)

    for name in joining.SIZES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(joining, "open_mpi", OpenMpi)
    with pytest.raises(UsageError, match="use Open MPI's own mpiexec"), joining.joined_ranks([]):
        pass
