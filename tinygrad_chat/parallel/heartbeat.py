"""Heartbeats, by which ranks notice that another one has died: each has a second connection to rank 0, beside MPI's.

A process that is killed closes its connection. A machine that is cut off falls silent. A rank that hangs still sends
heartbeats, but does not reach the call in which the others wait. Rank 0 detects all of this (monitor.py) and tells the
other ranks.

The connection carries lines: `hello WORD RANK PROCESS HOST` first, which `welcome` answers; `beat CALLS` every second,
in both directions; `stop SIGNAL` and `failed TEXT` to rank 0; `end CODE` from rank 0, or `done` when all work is done.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from tinygrad_chat.errors import RankError

BEAT = 1.0  # seconds between heartbeats
HEARTBEAT_TIMEOUT = 7.0  # seconds without a heartbeat after which a rank counts as lost
CONNECTING = 5.0  # connection timeout in seconds, for each address of rank 0
LONGEST_LINE = 4096
WELCOME = b"welcome\n"
DONE = b"done"


@dataclass(frozen=True)
class Meeting:
    """Rank 0's addresses and port, the ranks' shared secret, and rank 0's process ID if all are on one machine."""

    addresses: Sequence[str]
    port: int
    word: str
    process: int | None


@dataclass
class Progress:
    """A rank's communication so far: the number of calls started, and when its current wait began, if it waits."""

    calls: int
    waiting_since: float | None


class Heartbeat:
    """Another rank's connection to rank 0. If rank 0 ends early or falls silent, a thread calls `on_end` with the exit
    code that it sent, or None."""

    def __init__(
        self, rank: int, meeting: Meeting, *, progress: Callable[[], Progress], on_end: Callable[[int | None], object]
    ) -> None:
        self._progress, self._on_end, self._meeting = progress, on_end, meeting
        self._connection = _connect(meeting, f"hello {meeting.word} {rank} {os.getpid()} {socket.gethostname()}")
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._beat, self._listen)]
        for thread in self._threads:
            thread.start()

    def stop(self, signal: int) -> None:
        """Ask rank 0 to stop because of a signal."""
        self._tell(f"stop {signal}")

    def fail(self, text: str) -> None:
        """Tell rank 0 why this rank cannot continue."""
        self._tell(f"failed {text}")

    def end(self) -> None:
        """Stop sending heartbeats, and wait until rank 0, which knows that all is done, closes the connection."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def _tell(self, line: str) -> None:
        with self._sending:
            send_line(self._connection, line)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._tell(f"beat {self._progress().calls}")

    def _listen(self) -> None:
        self._connection.settimeout(HEARTBEAT_TIMEOUT)
        received, code = b"", None
        while True:
            try:
                data = receive_some(self._connection)
            except TimeoutError:
                data = b""
                if not self._ended.is_set():
                    kill_here(self._meeting.process)
            received = (received + data)[-LONGEST_LINE:]
            *lines, received = received.split(b"\n")
            for line in lines:
                code = int(line[4:]) if line.startswith(b"end ") else code
                if line == DONE:  # may arrive before this rank calls `end`
                    self._ended.set()
            if self._ended.is_set() and not data:
                return
            if not data:
                self._on_end(code)
                return


def _connect(meeting: Meeting, hello: str) -> socket.socket:
    """Return a connection to rank 0, at the first of its addresses that answers."""
    for address in meeting.addresses:
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            connection = opened.enter_context(socket.create_connection((address, meeting.port), timeout=CONNECTING))
            send_line(connection, hello)
            if receive_some(connection) == WELCOME:
                opened.pop_all()
                return connection
    raise RankError(
        f"rank 0 cannot be reached at port {meeting.port} of {', '.join(meeting.addresses)}; let the machines of all "
        "ranks connect to each other"
    )


def kill_here(process: int | None) -> None:
    """Kill a rank that can no longer end itself, if it is certainly on this machine."""
    if process is not None:
        with contextlib.suppress(psutil.Error):
            psutil.Process(process).kill()


def send_line(connection: socket.socket, line: str) -> None:
    """Send a line, ignoring errors: a rank that is gone or does not read is detected by its silence."""
    with contextlib.suppress(OSError):
        connection.sendall(line.encode() + b"\n")


def receive_some(connection: socket.socket) -> bytes:
    """Return the bytes received, none if the connection is closed. Raises TimeoutError if nothing arrives in time."""
    try:
        return connection.recv(LONGEST_LINE)
    except ConnectionError:
        return b""
