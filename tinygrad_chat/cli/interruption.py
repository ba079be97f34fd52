"""Ctrl-C and SIGTERM as a wish to stop, which long commands grant between two steps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BROKEN_PIPE = 13  # the number of SIGPIPE, which Windows has no name for


def exit_code(received: list[int]) -> int:
    """Return what a shell expects of a process that ended by the first signal, or else by a closed pipe."""
    return 128 + (received[0] if received else BROKEN_PIPE)


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[list[int]]:
    """Within this context the first Ctrl-C or SIGTERM is noted in the list, to stop between two steps; a second
    one acts at once, as it always does."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: Any) -> None:
        received.append(number)
        restore()
        say("stopping after this step, with a checkpoint; once more to stop at once")

    for number in signals:
        signal.signal(number, note)
    try:
        yield received
    finally:
        restore()
