"""A command that several ranks run together: rank 0 does what it does alone, and the others take part."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tinygrad_chat.parallel.joining import Ranks

RanksOption = Annotated[
    int | None,
    typer.Option(
        "--ranks", min=1, help="so many processes on this machine, by MPI", rich_help_panel="Run", hidden=True
    ),
]
RankTimeout = Annotated[
    float,
    typer.Option(min=1, help="seconds that a rank may let the others wait", rich_help_panel="Run", hidden=True),
]


@contextmanager
def several_ranks(call: typer.Context, count: int | None, patience: float) -> Iterator[Ranks | None]:
    """Be rank 0 within this context, with what leads the others; or be alone, with None.

    Where this process is to start `count` ranks, or is another rank than the first, all is done when the context is
    entered, and the command ends.
    """
    if os.environ.get("TGC_STREAMS"):
        _leave_it_to_a_child()
    from tinygrad_chat.cli.interruption import pass_signals_on
    from tinygrad_chat.parallel.joining import joined_ranks, started_ranks

    arguments = list(call.obj or ())
    if count is not None and count > 1 and started_ranks() == 1:
        from tinygrad_chat.parallel.starting import start_ranks

        raise typer.Exit(start_ranks(count, arguments))
    with joined_ranks(arguments, expected=count, patience=patience) as ranks:
        if ranks is None or ranks.communicator.rank == 0:
            yield ranks
            return
        from tinygrad_chat.training.distributed import follow

        with pass_signals_on(ranks.stop):
            follow(ranks.communicator)
    raise typer.Exit


def _leave_it_to_a_child() -> None:
    """Let a child in a session of its own be the rank, and end with it. See parallel/starting.py."""
    parent, child = os.getpid(), os.fork()  # before there is a thread
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    os.setsid()
    threading.Thread(target=_hang_up_after, args=(parent,), daemon=True).start()


def _hang_up_after(parent: int) -> None:
    """Stop when the parent has been killed, unless that was because of another rank, which ends this one at once."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(3)
    os.kill(os.getpid(), signal.SIGHUP)
