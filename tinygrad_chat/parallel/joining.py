"""How this process becomes one of several ranks: the launcher says so in environment variables.

`mpiexec` (MPICH's, Intel's, Open MPI's), `srun` and `torchrun` each have their own variables. MPI connects the ranks,
and a second connection monitors them (heartbeat.py). Before the first step, rank 0 checks that all run the same program
with the same arguments.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat import __version__
from tinygrad_chat.backend.host_threads import blas_threads, count_cores, limit_threads
from tinygrad_chat.errors import RankError, TinygradChatError, UsageError
from tinygrad_chat.parallel.communicator import FAREWELL, Communicator
from tinygrad_chat.parallel.heartbeat import HEARTBEAT_TIMEOUT, Heartbeat, Progress
from tinygrad_chat.parallel.monitor import Monitor
from tinygrad_chat.parallel.mpi import MpiCommunicator, open_mpi
from tinygrad_chat.parallel.process_manager import find_the_others
from tinygrad_chat.parallel.shared_memory import remove_own_segments, remove_unused_segments
from tinygrad_chat.parallel.starting import bounded_start, remedy_of, take_streams

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE")
"""The variables of Open MPI, MPICH and Intel MPI, PMIx, Slurm's srun, and torchrun."""


def started_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of ranks that were started with this process; 1 if it was started alone."""
    for name in SIZES:
        if environment.get(name, "").isdigit():
            return max(1, int(environment[name]))
    return 1


@dataclass
class Ranks:
    """How this process, one of the ranks, reaches the others."""

    communicator: MpiCommunicator
    stop: Callable[[int], object]
    """Called by a rank other than 0 with the signal to stop that it received."""
    stopped_by: Callable[[], int | None]
    """On rank 0, returns the signal that another rank received, if any."""


@contextlib.contextmanager
def joined_ranks(
    arguments: Sequence[str], *, expected: int | None = None, patience: float = 300
) -> Iterator[Ranks | None]:
    """Join the ranks within this context; yield None if this process was started alone.

    Ranks on one machine share its cores, and have a GPU each if there are any.

    All ranks must have the same `arguments`. When rank 0 leaves the context, it broadcasts FAREWELL, for which the
    others must be waiting. When it leaves with an exception, all others end. When a rank is lost, rank 0's waiting or
    next call raises RankError. Raises UsageError if the ranks do not match, or if their number is not `expected`.
    """
    size = started_ranks()
    if expected is not None and size > 1 and size != expected:
        raise UsageError(f"--ranks {expected}: {size} ranks were already started; leave out --ranks")
    if size == 1:
        yield None
        return
    mpi = open_mpi()
    if not any(name in os.environ for name in SIZES[:-1]):
        if mpi.get_vendor()[0] == "Open MPI":
            raise UsageError("torchrun: Open MPI cannot read its variables; use Open MPI's own mpiexec, or srun")
        find_the_others()
    remove_unused_segments()
    with bounded_start():
        communicator = MpiCommunicator(mpi)
        local = communicator.ranks_here()  # waits for all others, which no heartbeat monitors yet
    if communicator.size != size:
        raise UsageError(
            f"{size} ranks were started, but MPI knows of {communicator.size}: start them with the mpiexec that "
            "belongs to it, or with srun --mpi=pmi2"
        )
    communicator.overlaps = len(local) < size
    _choose_device(local.index(communicator.rank))

    def progress() -> Progress:
        return Progress(communicator.calls, communicator.waiting_since)

    limit_threads(min(blas_threads(), max(1, count_cores() // len(local))))
    if communicator.rank == 0:
        tell = take_streams()
        monitor = Monitor(
            size,
            several_machines=len(local) < size,
            progress=progress,
            on_failure=lambda text: communicator.fail(RankError(text)),
            patience=patience,
        )
        try:
            communicator.broadcast_object(monitor.meeting)
            monitor.wait_for_all()
            _expect_alike(communicator, arguments)
            yield Ranks(communicator, lambda signal: None, lambda: monitor.stopped_by)
        except BaseException as error:
            tell(_code_of(error))
            remove_own_segments()
            monitor.end(_code_of(error))
            if len(local) < size:  # otherwise mpiexec would wait for a machine that is cut off
                atexit.register(communicator.abort, _code_of(error))
            raise
        tell(0)
        communicator.broadcast_object(FAREWELL)
        communicator.barrier()  # from here on a rank may end without being reported as lost
        monitor.end(None)
        communicator.close()
    else:
        heartbeat = Heartbeat(
            communicator.rank,
            communicator.broadcast_object(),
            progress=progress,
            on_end=lambda code: _leave(communicator.rank, code, remedy_of(arguments)),
        )
        try:
            _expect_alike(communicator, arguments)
            yield Ranks(communicator, heartbeat.stop, lambda: None)
        except Exception as error:
            heartbeat.fail(_one_line(error))  # rank 0 prints it and ends this process
            time.sleep(HEARTBEAT_TIMEOUT)
            remove_own_segments()
            os._exit(_code_of(error))
        communicator.barrier()
        heartbeat.end()
        communicator.close()


def _leave(rank: int, code: int | None, remedy: str) -> None:
    """End this process, which has nothing to save. If rank 0 sent no exit code, rank 1 prints an error."""
    if code is None and rank == 1:
        with contextlib.suppress(OSError):
            os.write(2, f"tgc: rank 0 has ended or is unreachable; {remedy}\n".encode())
    remove_own_segments()
    os._exit(RankError.exit_code if code is None else code)


def _expect_alike(communicator: Communicator, arguments: Sequence[str]) -> None:
    """Raise UsageError on rank 0 if a rank runs a different program, or has different arguments."""
    mine = {
        "the version of tinygrad_chat": __version__,
        "the code of tinygrad_chat": _digest_of_code(),
        "the version of Python": "{}.{}".format(*sys.version_info),
        "the arguments": " ".join(arguments),
    }
    for rank, theirs in enumerate(communicator.gather_objects(mine) or []):
        for what, value in mine.items():
            if theirs[what] != value:
                raise UsageError(f"rank {rank}: expected {what} to be that of rank 0, {value}; received {theirs[what]}")


def _digest_of_code() -> str:
    """Return a digest of this package's source files."""
    digest, folder = hashlib.sha256(), Path(__file__).parent.parent
    for path, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.endswith((".py", ".cu", ".cuh")):
                digest.update(Path(path, name).read_bytes())
    return digest.hexdigest()[:12]


def _choose_device(local_rank: int) -> None:
    """Let this rank see only one GPU, if there are any: each rank of a machine has its own."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(64)]
    os.environ["CUDA_VISIBLE_DEVICES"] = names[local_rank % len(names)]


def _code_of(error: BaseException) -> int:
    """Return the exit code of a process that ends with this exception."""
    return int(getattr(error, "exit_code", 1))


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, TinygradChatError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
