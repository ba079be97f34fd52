"""How ranks learn of each other's end: one closes its connection, falls silent, hangs, fails or is told to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from tinygrad_chat.errors import RankError
from tinygrad_chat.parallel import heartbeat, monitor
from tinygrad_chat.parallel.heartbeat import Heartbeat, Progress
from tinygrad_chat.parallel.monitor import Monitor

SOON = 5.0
"""Seconds within which what is expected must have happened; it takes far fewer."""


class Rank0:
    """A monitor, and what it has been told to tell."""

    def __init__(self, size: int, *, patience: float = 60.0) -> None:
        self.progress = Progress(0, None)
        self.failures: list[str] = []
        self.monitor = Monitor(
            size,
            several_machines=False,
            progress=lambda: self.progress,
            on_failure=self.failures.append,
            patience=patience,
        )


class Other:
    """Another rank, and with which code it was told to end."""

    all: ClassVar[list[Other]] = []

    def __init__(self, rank: int, of: Rank0) -> None:
        Other.all.append(self)
        self.progress = Progress(0, None)
        self.codes: list[int | None] = []
        self.heartbeat = Heartbeat(
            rank, of.monitor.meeting, progress=lambda: self.progress, on_end=lambda code: self.codes.append(code)
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (heartbeat, monitor):
        monkeypatch.setattr(module, "BEAT", 0.02)
        monkeypatch.setattr(module, "HEARTBEAT_TIMEOUT", 1.0)
        monkeypatch.setattr(module, "kill_here", lambda process: None)
    yield
    for other in Other.all:
        other.heartbeat.end()
    Other.all.clear()


@pytest.fixture
def rank_0() -> Iterator[Rank0]:
    of = Rank0(3)
    yield of
    of.monitor.end(None)


def expect(what: Callable[[], object]) -> None:
    """Wait until it is so."""
    until = time.monotonic() + SOON
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def close(other: Other) -> None:
    """End a rank as the system does when its process dies."""
    other.heartbeat._ended.set()
    other.heartbeat._connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.profile("ci")
def test_nothing_is_said_while_all_live(rank_0: Rank0):
    others = [Other(rank, rank_0) for rank in (1, 2)]
    rank_0.monitor.wait_for_all()
    time.sleep(1.5)  # longer than a silence
    assert rank_0.failures == []
    assert [other.codes for other in others] == [[], []]


def test_a_rank_that_dies_is_named_once(rank_0: Rank0):
    first, second = (Other(rank, rank_0) for rank in (1, 2))
    rank_0.monitor.wait_for_all()
    close(second)
    expect(lambda: rank_0.failures)
    close(first)
    time.sleep(0.1)
    assert [failure.split(" (")[0] for failure in rank_0.failures] == ["rank 2"]
    assert rank_0.failures[0].endswith(": has ended, and the others cannot continue without it")


@pytest.mark.profile("ci")
def test_a_rank_that_falls_silent_is_named(rank_0: Rank0):
    other = Other(1, rank_0)
    other.heartbeat._ended.set()
    expect(lambda: rank_0.failures)
    assert "rank 1 (" in rank_0.failures[0]
    assert "has not responded" in rank_0.failures[0]


def test_a_rank_that_does_not_come_to_where_the_others_wait_is_named():
    of = Rank0(3, patience=0.3)
    others = [Other(rank, of) for rank in (1, 2)]
    of.monitor.wait_for_all()
    others[0].progress = Progress(5, None)
    others[1].progress = Progress(4, None)
    time.sleep(0.1)
    of.progress = Progress(5, time.perf_counter())
    expect(lambda: of.failures)
    of.monitor.end(None)
    assert of.failures[0].startswith("rank 2 (")
    assert of.failures[0].endswith("has kept the others waiting for 0.3 s: it hangs")


def test_where_all_have_come_and_nothing_goes_on_no_rank_is_blamed():
    of = Rank0(2, patience=0.3)
    other = Other(1, of)
    of.monitor.wait_for_all()
    other.progress = Progress(7, time.perf_counter())
    time.sleep(0.1)
    of.progress = Progress(7, time.perf_counter())
    expect(lambda: of.failures)
    of.monitor.end(None)
    assert of.failures[0].startswith("the ranks: has kept the others waiting")


def test_rank_0_may_compute_for_as_long_as_it_likes():
    of = Rank0(2, patience=0.1)
    Other(1, of)
    of.monitor.wait_for_all()
    time.sleep(0.4)
    of.monitor.end(None)
    assert of.failures == []


def test_an_error_and_a_signal_of_another_rank_come_to_rank_0(rank_0: Rank0):
    others = [Other(rank, rank_0) for rank in (1, 2)]
    others[0].heartbeat.stop(15)
    expect(lambda: rank_0.monitor.stopped_by == 15)
    others[1].heartbeat.fail("no memory")
    expect(lambda: rank_0.failures)
    assert rank_0.failures[0].endswith(": no memory")


@pytest.mark.profile("ci")
@pytest.mark.parametrize("code", [0, 4])
def test_when_rank_0_ends_the_others_are_told_with_its_code(code: int):
    of = Rank0(2)
    other = Other(1, of)
    of.monitor.wait_for_all()
    of.monitor.end(code)
    expect(lambda: other.codes)
    assert other.codes == [code]
    of.monitor.end(None)


def test_when_rank_0_dies_the_others_notice(rank_0: Rank0):
    other = Other(1, rank_0)
    expect(lambda: rank_0.monitor._peers)
    rank_0.monitor._peers[0].connection.shutdown(socket.SHUT_RDWR)
    expect(lambda: other.codes)
    assert other.codes == [None]


def test_when_all_is_done_rank_0_may_go_before_another_has_come_to_its_own_end():
    of = Rank0(2)
    other = Other(1, of)
    of.monitor.wait_for_all()
    of.monitor.end(None)
    time.sleep(0.1)
    other.heartbeat.end()
    assert other.codes == []


@pytest.mark.profile("ci")
def test_of_ranks_that_fall_silent_together_the_first_is_named_and_then_the_others(
    rank_0: Rank0, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(monitor, "BEAT", 0.4)  # together is within two heartbeats, however busy the machine is
    first, second = (Other(rank, rank_0) for rank in (1, 2))
    rank_0.monitor.wait_for_all()
    second.heartbeat._ended.set()
    time.sleep(0.03)  # so that its silence is the longer one
    first.heartbeat._ended.set()
    expect(lambda: rank_0.failures)
    assert rank_0.failures[0].startswith("rank 1 (")
    assert rank_0.failures[0].endswith("it is stopped or unreachable, and so is rank 2")


def test_a_rank_that_does_not_come_is_named(rank_0: Rank0, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(monitor, "GATHERING", 0.2)
    Other(2, rank_0)
    with pytest.raises(RankError, match="rank 1: could not reach rank 0 within 0 s"):
        rank_0.monitor.wait_for_all()


def test_a_rank_that_has_ended_before_it_came_is_not_waited_for(rank_0: Rank0, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getppid", lambda: -1)
    with pytest.raises(RankError, match="a rank has ended before all had connected"):
        rank_0.monitor.wait_for_all()


def test_who_does_not_know_the_word_is_no_rank(rank_0: Rank0, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heartbeat, "CONNECTING", 0.2)
    stranger = dataclasses.replace(rank_0.monitor.meeting, word="guessed")
    with pytest.raises(RankError, match="cannot be reached"):
        Heartbeat(1, stranger, progress=lambda: Progress(0, None), on_end=lambda code: None)
    assert rank_0.failures == []


def test_a_stranger_who_says_too_much_is_sent_away(rank_0: Rank0):
    meeting = rank_0.monitor.meeting
    with socket.create_connection((meeting.addresses[0], meeting.port), timeout=SOON) as stranger:
        stranger.sendall(b"x" * 10_000)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
