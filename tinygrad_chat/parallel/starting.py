"""`--ranks N`: start N ranks on this machine with MPI's own `mpiexec`, and represent them to the user.

mpiexec would send rank 0's output through pipes, and kill rank 0 at once when another rank dies. So rank 0 gets this
process's own standard streams. And each rank is a child, in a session of its own, of the process that mpiexec knows:
the ranks themselves decide whether to continue (heartbeat.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tinygrad_chat.errors import BackendError, RankError
from tinygrad_chat.parallel.mpi import open_mpi

STREAMS = "TGC_STREAMS"
"""The environment variable with the path of the socket through which rank 0 gets its standard streams."""
FORWARDED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
STARTING = 90
"""Seconds within which all ranks must have connected."""
PR_SET_PDEATHSIG = 1  # an option of Linux's prctl
ENDING = 15.0
"""Seconds that rank 0 may take to end after mpiexec."""


def start_ranks(count: int, arguments: Sequence[str]) -> int:
    """Run `tgc` with these arguments in that many ranks; return rank 0's exit code. Signals are forwarded to rank 0.

    Raises BackendError without MPI, and RankError if rank 0 ended without reporting an exit code.
    """
    command = [*ranks_command(count), sys.executable, "-m", "tinygrad_chat", *arguments]
    with tempfile.TemporaryDirectory(prefix="tgc") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(folder, "streams"))
        listener.bind(address)
        listener.listen()
        rank_0 = _Rank0(listener)
        before = {number: signal.signal(number, lambda received, _: rank_0.send(received)) for number in FORWARDED}
        try:
            mpiexec = subprocess.Popen(
                command,
                env={**os.environ, STREAMS: address},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # the terminal's signals come to this process only, which forwards them
            )
            written = mpiexec.communicate()[0]
            code = rank_0.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if code is not None:
        return code
    if rank_0.process is not None:
        raise RankError(f"rank 0 has ended without giving a reason; {remedy_of(arguments)}")
    said = [line.removeprefix("tgc: ") for line in written.splitlines() if line.startswith("tgc: ")]
    raise RankError(
        said[0] if said else f"mpiexec has ended with exit code {mpiexec.returncode} before the ranks had started"
    )


def remedy_of(arguments: Sequence[str]) -> str:
    """Return the advice to print if rank 0 of a `tgc` with these arguments has ended without an exit code."""
    return "resume with: tgc train --resume" if "train" in arguments[:1] else "start it again"


class _Rank0:
    """Rank 0 as seen by the process that started it, from when it asks for its streams."""

    def __init__(self, listener: socket.socket) -> None:
        self.process: int | None = None
        self._code: int | None = None
        self._received: list[int] = []
        self._listener = listener
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, number: int) -> None:
        """Forward a signal as soon as rank 0 has connected."""
        self._received.append(number)
        self._pass_on()

    def wait(self) -> int | None:
        """Wait until it has ended; return the exit code that it reported, None if it did not."""
        if self.process is None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # it will not connect any more
        self._thread.join(ENDING)
        return self._code

    def _pass_on(self) -> None:
        while self.process is not None and self._received:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, self._received.pop(0))

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                self.process = int(connection.recv(32))
                socket.send_fds(connection, [b"streams"], [0, 1, 2])
                self._pass_on()
                said = connection.recv(32)
                self._code = int(said) if said else None
                connection.recv(32)  # returns once it has ended


def take_streams() -> Callable[[int], None]:
    """Take over, as rank 0, the streams of the process that started the ranks, if it offers them. Return a function
    that reports this process's exit code to it.

    When that process ends, this one ends as if its terminal had been closed.
    """
    address = os.environ.pop(STREAMS, None)
    if address is None:
        return lambda code: None
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    connection.sendall(str(os.getpid()).encode())
    _, streams, _, _ = socket.recv_fds(connection, 32, 3)
    sys.stdout.flush()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    threading.Thread(target=_hang_up, args=(connection,), daemon=True).start()
    return lambda code: connection.sendall(str(code).encode())


@contextlib.contextmanager
def bounded_start() -> Iterator[None]:
    """Kill this process if the ranks do not connect in time within this context. MPI's initialisation holds the GIL, so
    no signal handler or thread could end it. On Linux it is also killed as soon as its parent has ended."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(STARTING)
    if STREAMS in os.environ:
        _die_with_parent(signal.SIGKILL)
    try:
        yield
    finally:
        signal.alarm(0)
        for number in FORWARDED:  # MPI may have installed its own handler: UCX takes SIGHUP
            signal.signal(number, signal.getsignal(number))
        if STREAMS in os.environ:
            _die_with_parent(0)


def _die_with_parent(number: int) -> None:
    """Let the system send this process a signal when its parent dies; 0 for none."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if number and os.getppid() == 1:  # the parent has already ended
            os.kill(os.getpid(), number)


def _hang_up(connection: socket.socket) -> None:
    """Wait until the process that started the ranks ends, then send SIGHUP to this one."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os.kill(os.getpid(), signal.SIGHUP)


def ranks_command(count: int) -> list[str]:
    """Return the command prefix that starts a command in that many ranks: mpiexec (this Python's, or the first on the
    path) and its options. Raises BackendError if there is none."""
    found = shutil.which(Path(sys.executable).parent / "mpiexec") or shutil.which("mpiexec")
    if found is None:
        raise BackendError("--ranks: needs mpiexec, which comes with an MPI library: pip install tinygrad-chat[mpi]")
    of_open_mpi = open_mpi().get_vendor()[0] == "Open MPI"
    return [found, *(["--allow-run-as-root", "--oversubscribe"] if of_open_mpi else []), "-n", str(count)]
