"""A process manager for MPI, so that ranks find each other if their launcher only numbers them, like `torchrun`.

MPI asks its process manager, usually mpiexec, where the other ranks are. Here it is a separate process beside rank 0,
and each rank connects to it before it initialises MPI. The protocol is PMI-1, which MPICH and Intel MPI speak: lines of
words, each a name and a value, as in `cmd=put kvsname=ranks key=K value=V`, which is answered by
`cmd=put_result rc=0`. A rank sends `initack` first, which is answered once all have connected.

Anyone who can reach the port can take part: like torchrun, this is for trusted networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import MutableMapping

from tinygrad_chat.errors import RankError, UsageError

GATHERING = 60.0  # seconds for all ranks to connect
ENDING = 10.0  # seconds for all to end
WAITING = 0.2  # seconds between attempts to connect
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_STARTED: list[subprocess.Popen[bytes]] = []  # process managers started by this process, which they outlive
REPLIES = {
    "init": "response_to_init rc=0 pmi_version=1 pmi_subversion=1",
    "get_maxes": "maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024",
    "get_appnum": "appnum rc=0 appnum=0",
    "get_my_kvsname": "my_kvsname rc=0 kvsname=ranks",
    "finalize": "finalize_ack rc=0",
}


def find_the_others(environment: MutableMapping[str, str] = os.environ) -> None:
    """Wait until all ranks have connected, and set the environment variables by which MPI finds them.

    Rank 0 starts the process manager, at the port after torchrun's own. Raises UsageError if torchrun's variables are
    incomplete, and RankError if a rank does not connect.
    """
    for name in NEEDED:
        value = environment.get(name, "")
        if not (value if name == "MASTER_ADDR" else value.isdigit()):
            raise UsageError(
                f"WORLD_SIZE={environment['WORLD_SIZE']}: expected torchrun's RANK, MASTER_ADDR and MASTER_PORT with "
                f"it, received {name}={value}"
            )
    rank, size, address, port = (environment[name] for name in NEEDED)
    here = environment.get("LOCAL_WORLD_SIZE") == size
    place = ("127.0.0.1" if here else address, int(port) + 1)
    if rank == "0":
        listener = _listen(place[0] if here else "", place[1])
        manager = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno()), size, str(GATHERING)],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that a signal to the ranks does not end it first
        )
        listener.close()
        _STARTED.append(manager)
    connection = _connect(place)
    connection.sendall(f"cmd=initack pmiid={rank}\n".encode())
    with connection.makefile() as replies:
        words = _words(replies.readline())
    if words.get("rc") != "0":
        connection.close()
        raise RankError(f"rank {words.get('missing', '0')}: did not connect within {GATHERING:g} s")
    environment.update(PMI_FD=str(connection.detach()), PMI_RANK=rank, PMI_SIZE=size)


def _listen(address: str, port: int) -> socket.socket:
    try:
        return socket.create_server((address, port), backlog=4096)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"port {port}: rank 0 needs it in addition to MASTER_PORT ({error}); choose another"
        ) from error


def _connect(place: tuple[str, int]) -> socket.socket:
    until = time.monotonic() + GATHERING
    while True:
        try:
            connection = socket.create_connection(place, timeout=GATHERING)
        except OSError as error:
            if time.monotonic() > until:
                raise RankError(f"rank 0: cannot be reached at port {place[1]} of {place[0]} ({error})") from error
            time.sleep(WAITING)
        else:
            connection.settimeout(None)
            return connection


class ProcessManager:
    """Answers the ranks' requests, from a key-value store that they fill."""

    def __init__(self, size: int, patience: float) -> None:
        self._size, self._patience = size, patience
        self._ranks: dict[str, asyncio.StreamWriter] = {}
        self._told: dict[str, str] = {}
        self._at_barrier: list[asyncio.StreamWriter] = []
        self._gathered, self._first_ended, self._all_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        """Answer until rank 0 and all other reachable ranks have ended, or until one fails to connect."""
        async with await asyncio.start_server(self._hear, sock=listener):
            if await _comes(self._gathered, self._patience):
                self._tell_all("initack rc=0")
                await self._first_ended.wait()
            else:
                missing = next(rank for rank in map(str, range(self._size)) if rank not in self._ranks)
                self._tell_all(f"initack rc=-1 missing={missing}")
            await _comes(self._all_ended, ENDING)

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one rank until it disconnects."""
        rank = ""
        with contextlib.suppress(OSError, ValueError):
            async for line in reader:
                words = _words(line.decode())
                if rank:
                    self._answer(writer, words)
                elif words["cmd"] == "initack":
                    rank = words["pmiid"]
                    self._ranks[rank] = writer
                    if len(self._ranks) == self._size:
                        self._gathered.set()
        writer.close()
        if self._ranks.pop(rank, None):
            self._look_at_barrier()
        if rank == "0":
            self._first_ended.set()
        if not self._ranks:
            self._all_ended.set()

    def _answer(self, writer: asyncio.StreamWriter, words: dict[str, str]) -> None:
        command, key = words.get("cmd", ""), words.get("key", "")
        if command == "barrier_in":
            self._at_barrier.append(writer)
            self._look_at_barrier()
        elif command == "put":
            self._told[key] = words["value"]
            _tell(writer, "put_result rc=0")
        elif command == "get":
            _tell(writer, f"get_result rc=0 value={self._told[key]}" if key in self._told else "get_result rc=-1")
        else:
            _tell(writer, REPLIES.get(command, f"{command} rc=-1"))

    def _look_at_barrier(self) -> None:
        """Release the barrier once all ranks are there; if one has ended, disconnect the others."""
        if self._at_barrier and len(self._ranks) < self._size:
            for writer in self._ranks.values():
                writer.close()
        elif len(self._at_barrier) == self._size:
            self._at_barrier.clear()
            self._tell_all("barrier_out rc=0")

    def _tell_all(self, reply: str) -> None:
        for writer in self._ranks.values():
            _tell(writer, reply)


async def _comes(event: asyncio.Event, within: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), within)
    return event.is_set()


def _tell(writer: asyncio.StreamWriter, reply: str) -> None:
    writer.write(f"cmd={reply}\n".encode())


def _words(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split())


if __name__ == "__main__":
    number, size, patience = sys.argv[1:]
    asyncio.run(ProcessManager(int(size), float(patience)).serve(socket.socket(fileno=int(number))))
