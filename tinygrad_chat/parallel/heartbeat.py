"""How ranks learn of each other's end: a connection from each to rank 0, beside MPI's, for signs of life.

A process that is killed closes its connection. A machine that is cut off falls silent. A rank that hangs gives signs of
life, but does not come to where the others wait for it. Rank 0 notices each of these and tells the others.

What goes over a connection are lines: `hello WORD RANK PROCESS HOST` first, which `welcome` answers; `beat CALLS` every
second, in both directions; `stop SIGNAL` and `failed TEXT` to rank 0; `end CODE` from it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from tinygrad_chat.errors import RankError

BEAT = 1.0  # seconds from one sign of life to the next
SILENCE = 7.0  # seconds without one, after which a rank counts as lost
CONNECTING = 5.0  # seconds for each address that rank 0 may have
GATHERING = 60.0  # seconds for all ranks to connect
LONGEST_LINE = 4096
LOOPBACK = "127.0.0.1"
WELCOME = b"welcome\n"


@dataclass(frozen=True)
class Meeting:
    """Where rank 0 can be reached, the word that its ranks know, and which process it is."""

    addresses: Sequence[str]
    port: int
    word: str
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)


@dataclass
class Progress:
    """How far a rank's communication has come: calls begun, and since when it has been in the last one, if it is."""

    calls: int
    waiting_since: float | None


@dataclass
class _Peer:
    """What rank 0 knows of another rank."""

    connection: socket.socket
    name: str = ""
    rank: int = -1
    process: int = 0
    host: str = ""
    calls: int = 0
    heard: float = field(default_factory=time.monotonic)
    received: bytes = b""
    closed: bool = False


class Monitor:
    """Rank 0's end of the connections. `on_failure` is told, in another thread, which rank has failed and how, once.

    `progress` says how far rank 0 itself is; a rank that lets it wait for `patience` seconds hangs. Only where there
    are `several_machines` can others connect.
    """

    def __init__(
        self,
        size: int,
        *,
        several_machines: bool,
        progress: Callable[[], Progress],
        on_failure: Callable[[str], object],
        patience: float,
    ) -> None:
        self._size, self._progress, self._on_failure, self._patience = size, progress, on_failure, patience
        self._listener = socket.create_server(("" if several_machines else LOOPBACK, 0), backlog=size)
        self._peers: list[_Peer] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._gathered, self._ended, self._failed = threading.Event(), threading.Event(), False
        addresses = _own_addresses() if several_machines else [LOOPBACK]
        self.meeting = Meeting(addresses, self._listener.getsockname()[1], secrets.token_hex(16))
        self.stopped_by: int | None = None
        """The signal that has come to another rank, which asks for a stop with a checkpoint."""
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()

    def wait_for_all(self) -> None:
        """Wait until all ranks have connected. Raises RankError where one does not."""
        if not self._gathered.wait(GATHERING):
            missing = sorted(set(range(1, self._size)) - {peer.rank for peer in self._peers})
            raise RankError(
                f"rank {missing[0]}: could not reach rank 0 within {GATHERING:.0f} s, at port {self.meeting.port} of "
                f"{', '.join(self.meeting.addresses)}; let the machines of all ranks connect to each other"
            )

    def end(self, code: int | None) -> None:
        """Stop watching, and tell all ranks with which code they are to end; None where they know already.

        They end when this process does, and closes the connections: mpiexec kills who is left when a second one goes.
        """
        self._ended.set()
        self._thread.join()
        for key in list((self._selector.get_map() or {}).values()):
            if key.data is None or key.data.rank < 0:  # the listener, and who has not said who he is
                self._selector.unregister(key.fileobj)
                key.data.connection.close() if key.data else self._listener.close()
        self._selector.close()
        for peer in self._peers:
            if code is None:
                peer.connection.close()
            else:
                _send(peer.connection, f"end {code}")

    def _watch(self) -> None:
        """Listen, and give a sign of life, until the end."""
        beaten = looked = time.monotonic()
        while not self._ended.is_set():
            for key, _ in self._selector.select(BEAT / 4):
                self._accept() if key.data is None else self._hear(key.data)
            now = time.monotonic()
            if now - looked > SILENCE / 2:  # this process was stopped, and could hear nobody
                for peer in self._peers:
                    peer.heard = now
            looked = now
            if now - beaten >= BEAT:
                beaten = now
                for peer in self._peers:
                    _send(peer.connection, "beat")
            self._look_for_failures(now)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, _Peer(connection))

    def _hear(self, peer: _Peer) -> None:
        """Take what has come from a connection; who does not know the word is sent away."""
        try:
            data = _receive(peer.connection)
        except BlockingIOError:
            return
        peer.received += data
        *lines, peer.received = peer.received.split(b"\n")
        peer.heard = time.monotonic()
        for line in lines:
            self._understand(peer, line.decode(errors="replace"))
        if not data or len(peer.received) > LONGEST_LINE:
            peer.closed = True
            self._selector.unregister(peer.connection)
            if peer.rank < 0:
                peer.connection.close()

    def _understand(self, peer: _Peer, line: str) -> None:
        verb, _, rest = line.partition(" ")
        if peer.rank < 0:
            words = rest.split()
            if verb == "hello" and len(words) == 4 and secrets.compare_digest(words[0], self.meeting.word):
                peer.rank, peer.process, peer.host = int(words[1]), int(words[2]), words[3]
                peer.name = f"rank {peer.rank} (process {peer.process} on {peer.host})"
                self._peers.append(peer)
                peer.connection.sendall(WELCOME)
                if len(self._peers) == self._size - 1:
                    self._gathered.set()
        elif verb == "beat":
            peer.calls = int(rest)
        elif verb == "stop":
            self.stopped_by = int(rest)
        elif verb == "failed":
            self._fail(f"{peer.name}: {rest}")

    def _look_for_failures(self, now: float) -> None:
        for peer in self._peers:
            if peer.closed:
                self._fail(f"{peer.name}: has ended, and the others cannot go on without it")
            elif now - peer.heard > SILENCE:
                _kill(peer.process, peer.host)
                self._fail(f"{peer.name}: has given no sign of life for {SILENCE:.0f} s: it is stopped or cut off")
        progress = self._progress()
        if progress.waiting_since is not None and time.perf_counter() - progress.waiting_since > self._patience:
            behind = [peer.name for peer in self._peers if peer.calls < progress.calls] or ["the ranks"]
            self._fail(f"{behind[0]}: has let the others wait for {self._patience:g} s: it hangs")

    def _fail(self, text: str) -> None:
        if not self._failed and not self._ended.is_set():
            self._failed = True
            self._on_failure(text)


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
        """Give no more signs of life, when nobody waits for them."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # which wakes who listens
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def _tell(self, line: str) -> None:
        with self._sending:
            _send(self._connection, line)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._tell(f"beat {self._progress().calls}")

    def _listen(self) -> None:
        self._connection.settimeout(SILENCE)
        received, code = b"", None
        while True:
            try:
                data = _receive(self._connection)
            except TimeoutError:
                data = b""
                _kill(self._meeting.process, self._meeting.host)
            if self._ended.is_set():
                return
            received = (received + data)[-LONGEST_LINE:]
            *lines, received = received.split(b"\n")
            for line in lines:
                code = int(line[4:]) if line.startswith(b"end ") else code
            if not data:
                self._on_end(code)
                return


def _connect(meeting: Meeting, hello: str) -> socket.socket:
    """Return a connection to rank 0, at the first of its addresses where it answers."""
    for address in meeting.addresses:
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            connection = opened.enter_context(socket.create_connection((address, meeting.port), timeout=CONNECTING))
            _send(connection, hello)
            if _receive(connection) == WELCOME:
                opened.pop_all()
                return connection
    raise RankError(
        f"rank 0 cannot be reached at port {meeting.port} of {', '.join(meeting.addresses)}; let the machines of all "
        "ranks connect to each other"
    )


def _kill(process: int, host: str) -> None:
    """Kill a rank that can end itself no more, where it is on this machine."""
    if host == socket.gethostname():
        with contextlib.suppress(psutil.Error):
            psutil.Process(process).kill()


def _own_addresses() -> list[str]:
    """Return the addresses by which this machine may be reached; the loopback's last, for ranks that are on it."""
    every = itertools.chain.from_iterable(psutil.net_if_addrs().values())
    addresses = [each.address for each in every if each.family == socket.AF_INET]
    return sorted(addresses, key=lambda address: address.startswith("127."))


def _send(connection: socket.socket, line: str) -> None:
    """Send a line; one who has gone, or does not read, will be noticed by what does not come back."""
    with contextlib.suppress(OSError):
        connection.sendall(line.encode() + b"\n")


def _receive(connection: socket.socket) -> bytes:
    """Return what has come, nothing where the connection is closed. Raises TimeoutError where nothing comes in time."""
    try:
        return connection.recv(LONGEST_LINE)
    except ConnectionError:
        return b""
