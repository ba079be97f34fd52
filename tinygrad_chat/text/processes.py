"""Worker processes: modules of this package that receive requests as lines of JSON.

Each ends when its input does, and so with the process that started it. Ctrl-C interrupts only that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

PLACE = str(Path(__file__).parents[2])


def start_process(module: str) -> subprocess.Popen[bytes]:
    """Start `python -m module`, with pipes for requests and answers."""
    path = os.pathsep.join(filter(None, [PLACE, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )


def pipes_of(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return the pipes for the requests to a process, and for its answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, whatever it is doing, and close its pipes."""
    process.kill()
    for stream in pipes_of(process):
        with contextlib.suppress(OSError):  # from unsent data
            stream.close()
    process.wait()


def as_line(message: object) -> bytes:
    """Return a message as a line of JSON."""
    return json.dumps(message).encode() + b"\n"


def messages_in(lines: Iterable[bytes]) -> Iterator[Any]:
    """Yield the message of each line. Raises ValueError for a truncated one."""
    return map(json.loads, lines)


def asked_of_this_process() -> Iterator[Any]:
    """Yield the requests to this process, until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return messages_in(sys.stdin.buffer)
