"""Measure how fast ranks exchange gradients: `python -m tinygrad_chat.parallel.bandwidth`, started on each rank."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import numpy as np

from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.formatting import one_line
from tinygrad_chat.parallel.communicator import Communicator
from tinygrad_chat.parallel.joining import joined_ranks
from tinygrad_chat.parallel.sharding import even_shares
from tinygrad_chat.parallel.starting import ranks_command

ELEMENTS = 4 << 20  # float32 numbers, 16 MiB
REPETITIONS = 7


def seconds_of_exchange(communicator: Communicator, elements: int = ELEMENTS) -> float:
    """Return the median seconds of a reduce-scatter and an all-gather of a gradient of `elements` numbers."""
    array, shares = np.ones(elements, np.float32), even_shares(elements, communicator.size)
    own = shares[communicator.rank]
    into, taken = np.empty(own.stop - own.start, np.float32), []
    for _ in range(REPETITIONS):
        communicator.barrier()
        began = time.perf_counter()
        communicator.reduce_scatter(array, shares, into)
        communicator.all_gather(array, shares)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measured_bandwidth(ranks: int = 2, *, within: float = 30.0) -> float:
    """Start that many ranks on this machine; return the bytes of gradient that they exchange per second.

    Raises BackendError without MPI, TinygradChatError if the ranks fail or do not finish in time.
    """
    command = [*ranks_command(ranks), sys.executable, "-m", "tinygrad_chat.parallel.bandwidth"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=within)
    except subprocess.TimeoutExpired as error:
        raise TinygradChatError(f"{ranks} ranks: did not finish within {within:g} s") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip(" =|")]
        said = one_line(" ".join(lines), most=300)
        raise TinygradChatError(f"{ranks} ranks: ended with exit code {done.returncode}: {said}")
    return float(done.stdout)


def main() -> None:
    """Measure, and let rank 0 print bytes per second."""
    with joined_ranks(("bandwidth",)) as ranks:
        if ranks is not None:
            seconds = seconds_of_exchange(ranks.communicator)
            if ranks.communicator.rank == 0:
                print(4 * ELEMENTS / seconds)
            else:
                ranks.communicator.broadcast_object()  # wait for rank 0's FAREWELL


if __name__ == "__main__":
    main()
