"""How ranks learn of each other's end: a connection from each to rank 0, beside MPI's, for signs of life.

A process that is killed closes its connection. A machine that is cut off falls silent. A rank that hangs gives signs of
life, but does not come to where the others wait for it. Rank 0 notices each of these (monitor.py) and tells the others.

What goes over a connection are lines: `hello WORD RANK PROCESS HOST` first, which `welcome` answers; `beat CALLS` every
second, in both directions; `stop SIGNAL` and `failed TEXT` to rank 0; `end CODE` from it, or `done` when all is.
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

BEAT = 1.0  # seconds from one sign of life to the next
SILENCE = 7.0  # seconds without one, after which a rank counts as lost
CONNECTING = 5.0  # seconds for each address that rank 0 may have
LONGEST_LINE = 4096
WELCOME = b"welcome\n"
DONE = b"done"


@dataclass(frozen=True)
class Meeting:
    """Where rank 0 can be reached, the word that its ranks know, and which process it is, if all are on one machine."""

    addresses: Sequence[str]
    port: int
    word: str
    process: int | None


@dataclass
class Progress:
    """How far a rank's communication has come: calls begun, and since when it has been in the last one, if it is."""

    calls: int
    waiting_since: float | None


class Heartbeat:
    """Another rank's connection to rank 0. `on_end` is told, in a thread, the code that rank 0 left with, or None."""

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
        """Ask rank 0 for a stop, as a signal has come."""
        self._tell(f"stop {signal}")

    def fail(self, text: str) -> None:
        """Tell rank 0 why this rank cannot go on."""
        self._tell(f"failed {text}")

    def end(self) -> None:
        """Give no more signs of life, and wait until rank 0, which knows that all is done, closes the connection."""
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
        self._connection.settimeout(SILENCE)
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
                if line == DONE:  # this rank may not have come to its own end yet
                    self._ended.set()
            if self._ended.is_set() and not data:
                return
            if not data:
                self._on_end(code)
                return


def _connect(meeting: Meeting, hello: str) -> socket.socket:
    """Return a connection to rank 0, at the first of its addresses where it answers."""
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
    """Kill a rank that can end itself no more, where it is on this machine for sure."""
    if process is not None:
        with contextlib.suppress(psutil.Error):
            psutil.Process(process).kill()


def send_line(connection: socket.socket, line: str) -> None:
    """Send a line; one who has gone, or does not read, will be noticed by what does not come back."""
    with contextlib.suppress(OSError):
        connection.sendall(line.encode() + b"\n")


def receive_some(connection: socket.socket) -> bytes:
    """Return what has come, nothing where the connection is closed. Raises TimeoutError where nothing comes in time."""
    try:
        return connection.recv(LONGEST_LINE)
    except ConnectionError:
        return b""
