"""Something else that a machine has to do: computes half of the time, until it is ended.

python -m bench.busy
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD = 0.1  # seconds of work, then of sleep


@contextmanager
def busy() -> Iterator[None]:
    """Let such a process run meanwhile. It also ends when this process does, however it ends: left over, it would
    slow down all that is measured later."""
    with subprocess.Popen([sys.executable, "-m", "bench.busy"], stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.terminate()


def main() -> None:
    """Work and sleep in turn, until nobody can write to stdin any more."""
    threading.Thread(target=_work, daemon=True).start()
    sys.stdin.buffer.read()


def _work() -> None:
    while True:
        until = time.perf_counter() + PERIOD
        while time.perf_counter() < until:
            pass
        time.sleep(PERIOD)


if __name__ == "__main__":
    main()
