"""Something else that a machine has to do: computes half of the time, until it is ended.

python -m bench.busy
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD = 0.1  # seconds of work, then of sleep


@contextmanager
def busy() -> Iterator[None]:
    """Let such a process run meanwhile."""
    process = subprocess.Popen([sys.executable, "-m", "bench.busy"])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Work and sleep in turn."""
    while True:
        until = time.perf_counter() + PERIOD
        while time.perf_counter() < until:
            pass
        time.sleep(PERIOD)


if __name__ == "__main__":
    main()
