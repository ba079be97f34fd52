"""Rank 0's side of the heartbeat connections (heartbeat.py)."""

from __future__ import annotations

import itertools
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from tinygrad_chat.errors import RankError
from tinygrad_chat.parallel.heartbeat import (
    BEAT,
    DONE,
    HEARTBEAT_TIMEOUT,
    LONGEST_LINE,
    WELCOME,
    Meeting,
    Progress,
    kill_here,
    receive_some,
    send_line,
)

GATHERING = 60.0  # seconds for all ranks to connect
LOOPBACK = "127.0.0.1"


@dataclass
class _Peer:
    """Rank 0's record of another rank, or of a connection that has not yet named its rank."""

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
    """Rank 0's side of the connections. `on_failure` is called at most once, in another thread, with a text that says
    which rank has failed and how.

    `progress` returns rank 0's own progress. A rank that keeps it waiting for `patience` seconds counts as hung. Other
    machines can connect only with `several_machines`.
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
        self._parent, self._several_machines = os.getppid(), several_machines
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._gathered, self._ended, self._failed = threading.Event(), threading.Event(), False
        addresses = _own_addresses() if several_machines else [LOOPBACK]
        process = None if several_machines else os.getpid()
        self.meeting = Meeting(addresses, self._listener.getsockname()[1], secrets.token_hex(16), process)
        self.stopped_by: int | None = None
        """The signal that another rank has received; it requests a stop with a checkpoint."""
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()

    def wait_for_all(self) -> None:
        """Wait until all ranks have connected. Raises RankError if one does not, or ends before.

        If one ends, mpiexec ends the processes that it knows. With `--ranks` these include this process's parent.
        """
        until = time.monotonic() + GATHERING
        while not self._gathered.wait(BEAT / 4):
            if os.getppid() != self._parent:
                raise RankError("a rank has ended before all had connected")
            if time.monotonic() < until:
                continue
            missing = sorted(set(range(1, self._size)) - {peer.rank for peer in self._peers})
            raise RankError(
                f"rank {missing[0]}: could not reach rank 0 within {GATHERING:.0f} s, at port {self.meeting.port} of "
                f"{', '.join(self.meeting.addresses)}; let the machines of all ranks connect to each other"
            )

    def end(self, code: int | None) -> None:
        """Stop monitoring, and tell all ranks the exit code to end with; None if all work is done.

        They end only when this process does and so closes the connections: mpiexec kills all others when a second rank
        ends.
        """
        self._ended.set()
        self._thread.join()
        for key in list((self._selector.get_map() or {}).values()):
            if key.data is None or key.data.rank < 0:  # the listener, and connections without a hello
                self._selector.unregister(key.fileobj)
                key.data.connection.close() if key.data else self._listener.close()
        self._selector.close()
        for peer in self._peers:
            if code is None:
                send_line(peer.connection, DONE.decode())
                peer.connection.close()
            else:
                send_line(peer.connection, f"end {code}")

    def _watch(self) -> None:
        """Receive and send heartbeats until the end."""
        beaten = looked = time.monotonic()
        while not self._ended.is_set():
            for key, _ in self._selector.select(BEAT / 4):
                self._accept() if key.data is None else self._hear(key.data)
            now = time.monotonic()
            if now - looked > HEARTBEAT_TIMEOUT / 2:  # this process was suspended, and could not receive heartbeats
                for peer in self._peers:
                    peer.heard = now
            looked = now
            if now - beaten >= BEAT:
                beaten = now
                for peer in self._peers:
                    send_line(peer.connection, "beat")
            self._look_for_failures(now)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, _Peer(connection))

    def _hear(self, peer: _Peer) -> None:
        """Read what a connection has sent. One that ends without a valid hello is closed."""
        try:
            data = receive_some(peer.connection)
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
                self._fail(f"{peer.name}: has ended, and the others cannot continue without it")
            elif now - peer.heard > HEARTBEAT_TIMEOUT:
                kill_here(None if self._several_machines else peer.process)
                self._fail(self._silence(now))
        progress = self._progress()
        if progress.waiting_since is not None and time.perf_counter() - progress.waiting_since > self._patience:
            behind = [peer.name for peer in self._peers if peer.calls < progress.calls] or ["the ranks"]
            self._fail(f"{behind[0]}: has kept the others waiting for {self._patience:g} s: it hangs")

    def _silence(self, now: float) -> str:
        """Say which ranks are silent, in the order of ranks, not in the order in which their heartbeats were due."""
        first, *more = sorted(
            (peer for peer in self._peers if now - peer.heard > HEARTBEAT_TIMEOUT - 2 * BEAT),
            key=lambda peer: peer.rank,
        )
        also = "".join(f", and so is rank {peer.rank}" for peer in more)
        return f"{first.name}: has not responded for {HEARTBEAT_TIMEOUT:.0f} s: it is stopped or unreachable{also}"

    def _fail(self, text: str) -> None:
        if not self._failed and not self._ended.is_set():
            self._failed = True
            self._on_failure(text)


def _own_addresses() -> list[str]:
    """Return this machine's IPv4 addresses; loopback last, for ranks on this machine."""
    every = itertools.chain.from_iterable(psutil.net_if_addrs().values())
    addresses = [each.address for each in every if each.family == socket.AF_INET]
    return sorted(addresses, key=lambda address: address.startswith("127."))
