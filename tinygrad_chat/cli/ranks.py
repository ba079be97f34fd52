"""A command that several ranks run together: rank 0 works as it does alone, and the others take part."""

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
"""Seconds between two lines of another rank on its progress."""


class Follow(Protocol):
    """What a rank other than 0 does: all that rank 0 asks. It calls `done` with the name of each request."""

    def __call__(self, communicator: Communicator, *, done: Callable[[str], object] = ...) -> None:
        """Return when rank 0 has taken leave."""
        ...


@contextmanager
def several_ranks(
    call: typer.Context, count: int | None, patience: float, logs: str | None, follow: Follow
) -> Iterator[Ranks | None]:
    """Be rank 0 within this context, and yield what leads the others; or be alone, and yield None.

    The other ranks `follow`. They write nothing, or into files of the folder `logs`. Where this process has to start
    `count` ranks, or is a rank other than 0, entering the context does all the work and then ends the command.
    """
    if os.environ.get("TGC_STREAMS"):
        _leave_it_to_a_child()
    from tinygrad_chat.cli.interruption import exit_code, pass_signals_on
    from tinygrad_chat.parallel.joining import joined_ranks, started_ranks

    arguments = list(call.obj or ())
    if count is not None and count > 1 and started_ranks() == 1:
        from tinygrad_chat.parallel.starting import start_ranks

        raise typer.Exit(start_ranks(count, arguments))
    with joined_ranks(arguments, expected=count, patience=patience) as ranks:
        if ranks is None or ranks.communicator.rank == 0:
            try:
                yield ranks
            except BrokenPipeError as error:  # whoever started the ranks is told what a shell expects
                raise typer.Exit(exit_code([])) from error
            return
        with pass_signals_on(ranks.stop):
            follow(ranks.communicator) if logs is None else _follow_with_a_log(ranks, logs, follow)
    raise typer.Exit


def expect_all_ranks(ranks: Ranks | None) -> None:
    """End the command, on rank 0, where another rank is lost or has received a signal."""
    if ranks is None:
        return
    ranks.communicator.expect_no_failure()
    number = ranks.stopped_by()
    if number:
        from tinygrad_chat.cli.interruption import Interrupted

        raise Interrupted(number)


def _follow_with_a_log(ranks: Ranks, logs: str, follow: Follow) -> None:
    """Take part, with standard output and error in a file, and now and then a line on progress."""
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


def _leave_it_to_a_child() -> None:
    """Let a child in a session of its own be the rank, and end with it. See parallel/starting.py."""
    parent, child = os.getpid(), os.fork()  # before there is a thread
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code < 0:  # mpiexec ends the other ranks, which may wait for this one to begin, when it sees a signal
            signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
            os.kill(os.getpid(), -code)
        os._exit(code)
    os.setsid()
    threading.Thread(target=_hang_up_after, args=(parent,), daemon=True).start()


def _hang_up_after(parent: int) -> None:
    """Stop when the parent has been killed, unless that was because of another rank, which ends this one at once."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(3)
    os.kill(os.getpid(), signal.SIGHUP)
