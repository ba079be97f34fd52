"""How `tgc` is ended from outside: by Ctrl-C, SIGTERM, SIGHUP, which comes when a terminal has gone, or SIGUSR1, by
which Slurm says that the time of a job is nearly over.

While it starts and ends, at once. While a command works, by an exception, so that what is temporary is removed first.
A command that trains notes the signal instead, and stops between two steps; a second signal does not wait for that.
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
BROKEN_PIPE = 13  # the number of SIGPIPE, which Windows has no name for


class Interrupted(BaseException):
    """A signal that ends the command. No KeyboardInterrupt, of which libraries make something else."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


def on_signals(handler: Callable[[int, Any], object] | signal.Handlers) -> None:
    """Let `handler` have the signals from now on, but for those that were ignored from the start, as by nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end_at_once(number: int, _frame: Any = None) -> None:
    """Say why, and end the process."""
    say_interrupted(number)
    os._exit(128 + number)


def unwind(number: int, _frame: Any = None) -> None:
    """Raise Interrupted where the main thread is; end at once where that cannot get through, or for another signal."""
    on_signals(end_at_once)
    sys.unraisablehook = _end_if_interrupted
    raise Interrupted(number)


def _end_if_interrupted(unraisable: Any) -> None:
    """Be told of an exception that nobody can catch, as one in a finaliser."""
    if isinstance(unraisable.exc_value, Interrupted):
        end_at_once(unraisable.exc_value.number)
    sys.__unraisablehook__(unraisable)


def say_interrupted(number: int) -> None:
    """Say so on standard error, past all buffers, which may be in the middle of something; once, as another signal may
    come while it is said, or soon after."""
    on_signals(_pass_over)
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    with contextlib.suppress(OSError):
        os.write(2, f"tgc: interrupted{by}\n".encode())
    on_signals(_leave)


def _pass_over(_number: int, _frame: Any) -> None:
    """Do nothing. With SIG_IGN, Python would complain of a signal that has come just before."""


def _leave(number: int, _frame: Any) -> None:
    os._exit(128 + number)


def exit_code(received: list[int]) -> int:
    """Return what a shell expects of a process that ended by the first signal, or else by a closed pipe."""
    return 128 + (received[0] if received else BROKEN_PIPE)


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[list[int]]:
    """Within this context the first signal is noted in the list, to stop between two steps; a second one interrupts."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _frame: Any) -> None:
        received.append(number)
        on_signals(unwind)
        with contextlib.suppress(RuntimeError):  # in the middle of writing another line: then this one is left out
            say("stopping after this step, with a checkpoint; once more to stop at once")

    on_signals(note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not end_at_once:  # which a second signal has set, that is unwinding now
                signal.signal(number, handler)


@contextmanager
def pass_signals_on(to: Callable[[int], object]) -> Iterator[None]:
    """Within this context signals go to `to`, which asks the one who decides for a stop."""
    on_signals(lambda number, _frame: to(number))
    try:
        yield
    finally:
        on_signals(end_at_once)


@contextmanager
def raise_on_ctrl_c() -> Iterator[None]:
    """Within this context Ctrl-C raises KeyboardInterrupt: a line is not wanted, and no more than that."""
    with _on_ctrl_c(signal.default_int_handler):
        yield


@contextmanager
def note_ctrl_c() -> Iterator[list[int]]:
    """Within this context the first Ctrl-C is noted in the list, to stop between two tokens; another interrupts."""
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
        if signal.getsignal(signal.SIGINT) is handler:  # and no second signal is unwinding now
            signal.signal(signal.SIGINT, before)
