"""A command that several ranks run together: rank 0 works as it would alone, and the others carry out its requests."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from tinygrad_chat.errors import RankError

if TYPE_CHECKING:
    from tinygrad_chat.parallel import Communicator
    from tinygrad_chat.parallel.joining import Ranks

RanksOption = Annotated[
    int | None,
    typer.Option(
        "--ranks", min=1, help="number of processes on this machine, by MPI", rich_help_panel="Run", hidden=True
    ),
]
RankTimeout = Annotated[
    float,
    typer.Option(min=1, help="seconds that a rank may keep the others waiting", rich_help_panel="Run", hidden=True),
]
RankLogs = Annotated[
    str | None,
    typer.Option(help="a folder for the output of the other ranks", rich_help_panel="Run", hidden=True),
]
OFTEN = 60.0
"""Seconds between two progress lines in the log of another rank."""


class Follow(Protocol):
    """What a rank other than 0 does: carry out rank 0's requests. It calls `done` with the name of each."""

    def __call__(self, communicator: Communicator, *, done: Callable[[str], object] = ...) -> None:
        """Carry out requests until rank 0 is done."""
        ...


@contextmanager
def several_ranks(
    call: typer.Context, count: int | None, patience: float, logs: str | None, follow: Follow
) -> Iterator[Ranks | None]:
    """Within this context, be rank 0 and yield what leads the others; in a single process, yield None.

    The other ranks run `follow`, and write nothing, or to files in the folder `logs`. If this process has to start
    `count` ranks, or is a rank other than 0, entering the context does all the work and then ends the command.
    """
    if os.environ.get("TGC_STREAMS"):
        _fork_into_own_session()
    from tinygrad_chat.cli.interruption import PATIENT, Interrupted, exit_code, pass_over, pass_signals_on
    from tinygrad_chat.parallel.joining import joined_ranks, started_ranks

    arguments = list(call.obj or ())
    if count is not None and count > 1 and started_ranks() == 1:
        from tinygrad_chat.parallel.starting import start_ranks

        raise typer.Exit(start_ranks(count, arguments))
    with joined_ranks(arguments, expected=count, patience=patience) as ranks:
        if ranks is None or ranks.communicator.rank == 0:
            try:
                yield ranks
            except BrokenPipeError as error:  # for the launcher, the exit code that a shell expects
                raise typer.Exit(exit_code([])) from error
            except RankError:
                if PATIENT is not None:
                    signal.signal(PATIENT, pass_over)
                raise
            except Interrupted:
                if ranks is not None:
                    ranks.communicator.expect_no_failure()  # which may be the reason for the signal
                raise
            return
        with pass_signals_on(ranks.stop):
            follow(ranks.communicator) if logs is None else _follow_with_a_log(ranks, logs, follow)
    raise typer.Exit


def expect_all_ranks(ranks: Ranks | None) -> None:
    """End the command, on rank 0, if another rank is lost or has received a signal."""
    if ranks is None:
        return
    ranks.communicator.expect_no_failure()
    number = ranks.stopped_by()
    if number:
        from tinygrad_chat.cli.interruption import Interrupted

        raise Interrupted(number)


def _follow_with_a_log(ranks: Ranks, logs: str, follow: Follow) -> None:
    """Follow rank 0 with standard output and error going to a file, and a progress line now and then."""
    from tinygrad_chat.files import user_path
    from tinygrad_chat.formatting import count

    folder, began = user_path(logs), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / f"rank-{ranks.communicator.rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    steps, told = 0, -math.inf

    def done(asked: str) -> None:
        nonlocal steps, told
        steps += asked == "update"
        now = time.monotonic()
        if steps and now - told >= OFTEN:
            told, communicated = now, ranks.communicator.seconds
            line = f"{count(steps, 'step')} in {now - began:.1f} s, {communicated:.1f} s of them in communication"
            print(line, file=sys.stderr, flush=True)

    follow(ranks.communicator, done=done)


def _fork_into_own_session() -> None:
    """Fork a child in its own session to be the rank, and exit as it does. See parallel/starting.py."""
    parent, child = os.getpid(), os.fork()  # before any thread starts
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code < 0:  # on a signal, mpiexec ends the other ranks, which may be waiting for this one to start
            signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
            os.kill(os.getpid(), -code)
        os._exit(code)
    os.setsid()
    threading.Thread(target=_hang_up_after, args=(parent,), daemon=True).start()


def _hang_up_after(parent: int) -> None:
    """Hang up after the parent has been killed; if another rank was the cause, this one has already been ended."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(3)
    os.kill(os.getpid(), signal.SIGHUP)
