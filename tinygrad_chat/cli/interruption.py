"""How signals end `tgc`: Ctrl-C, SIGTERM, SIGHUP (the terminal has closed) or SIGUSR1 (a Slurm job is nearly over).

During start-up and exit, a signal ends the process at once. While a command works, it raises an exception, so that
temporary files are removed first. A command that trains notes the signal instead and stops between two steps; a second
signal does not wait for that, except SIGUSR1, which nobody sends in a hurry: MPICH's mpiexec repeats it for each rank
that is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
PATIENT = getattr(signal, "SIGUSR1", None)  # which Windows does not define; a second one does not interrupt
BROKEN_PIPE = 13  # the number of SIGPIPE, which Windows does not define


class Interrupted(BaseException):
    """A signal that ends the command. Not a KeyboardInterrupt, which libraries handle in their own ways."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


def on_signals(handler: Callable[[int, Any], object] | signal.Handlers) -> None:
    """Install `handler` for all SIGNALS except those that are ignored, as SIGHUP is under nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end_at_once(number: int, _frame: Any = None) -> None:
    """Say why, and end the process."""
    say_interrupted(number)
    os._exit(128 + number)


def unwind(number: int, _frame: Any = None) -> None:
    """Raise Interrupted in the main thread; if that cannot propagate, or another signal comes, end at once."""
    on_signals(end_at_once)
    sys.unraisablehook = _end_if_interrupted
    raise Interrupted(number)


def _end_if_interrupted(unraisable: Any) -> None:
    """Handle an exception that nothing can catch, such as one in a finaliser."""
    if isinstance(unraisable.exc_value, Interrupted):
        end_at_once(unraisable.exc_value.number)
    sys.__unraisablehook__(unraisable)


def say_interrupted(number: int) -> None:
    """Report the interruption on standard error, bypassing buffers, which may be in mid-write. Do so only once: another
    signal may arrive meanwhile or soon after."""
    on_signals(pass_over)
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    with contextlib.suppress(OSError):
        os.write(2, f"tgc: interrupted{by}\n".encode())
    on_signals(_leave)


def pass_over(_number: int, _frame: Any) -> None:
    """Do nothing. With SIG_IGN, Python would complain about a signal that arrived just before."""


def _leave(number: int, _frame: Any) -> None:
    os._exit(128 + number)


def exit_code(received: list[int]) -> int:
    """Return the exit code that shells expect after the first signal received, or else after a closed pipe."""
    return 128 + (received[0] if received else BROKEN_PIPE)


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[list[int]]:
    """Within this context, note the first signal in the list, to stop between two steps; a second one interrupts."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _frame: Any) -> None:
        received.append(number)
        on_signals(unwind)
        if PATIENT is not None:
            signal.signal(PATIENT, pass_over)
        with contextlib.suppress(RuntimeError):  # a reentrant write, in the middle of another line: skip this one
            say("stopping after this step, with a checkpoint; interrupt again to stop immediately")

    on_signals(note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) not in (end_at_once, pass_over):  # set by a second signal, or as one was noted
                signal.signal(number, handler)


@contextmanager
def pass_signals_on(to: Callable[[int], object]) -> Iterator[None]:
    """Within this context, signals are passed to `to`, which asks rank 0 to stop. So they are after an error in it:
    rank 0 then reports the error, and ends this process."""
    on_signals(lambda number, _frame: to(number))
    yield
    on_signals(end_at_once)


@contextmanager
def raise_on_ctrl_c() -> Iterator[None]:
    """Within this context, Ctrl-C raises KeyboardInterrupt: it discards the line being typed and nothing else."""
    with _on_ctrl_c(signal.default_int_handler):
        yield


@contextmanager
def note_ctrl_c() -> Iterator[list[int]]:
    """Within this context, note the first Ctrl-C in the list, to stop between two tokens; a second one interrupts."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            unwind(number, frame)
        received.append(number)

    with _on_ctrl_c(note):
        yield received


@contextmanager
def _on_ctrl_c(handler: Callable[[int, Any], object]) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:  # unless a second signal is unwinding now
            signal.signal(signal.SIGINT, before)
