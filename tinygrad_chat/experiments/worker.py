"""A run of an ablation in its own subprocess: `python -m tinygrad_chat.experiments.worker FOLDER`.

Its first line of input says in JSON what to train. When its input ends, it stops after the current step, with a
checkpoint: its parent has asked for that, or has died. It does the same on a signal. If there is nothing to save yet,
it stops at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TypedDict

from tinygrad_chat.config.record import from_saved
from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.experiments.ablation import shown
from tinygrad_chat.experiments.planned import train_planned
from tinygrad_chat.machine.memory import refuse_more_than_available
from tinygrad_chat.schema import parse_json
from tinygrad_chat.training.events import Logged

STOPPING = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # the last two come from a cluster about to end the job
SIGNALS = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]


class Request(TypedDict):
    """What to train, and whether the user has confirmed a scalar model that takes minutes per step."""

    settings: dict[str, Any]
    confirmed: bool


class _Stop:
    """Whether to stop, and because of which signal, if any; exits at once while there is no `training` to save."""

    def __init__(self) -> None:
        self.training = False
        self.wanted = False
        self._signal = 0

    def by_signal(self, number: int, _frame: Any) -> None:
        self._signal = number
        self._want()

    def at_the_end_of_input(self) -> None:
        while os.read(0, 1):
            pass
        self._want()

    def _want(self) -> None:
        self.wanted = True
        if not self.training:
            os._exit(self.explain())

    def explain(self) -> int:
        """Say which signal it was, if any; return the exit code."""
        if not self._signal:
            return 0
        os.write(2, f"stopped by {signal.Signals(self._signal).name}\n".encode())
        return 128 + self._signal


def main() -> int:
    """Train the requested run; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    stop = _Stop()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop.by_signal)
    request = parse_json(sys.stdin.buffer.readline(), Request, source="the request")
    threading.Thread(target=stop.at_the_end_of_input, daemon=True).start()
    try:
        config = from_saved(request["settings"], source="the request")
        events = train_planned(
            config, Path(sys.argv[1]), should_stop=lambda: stop.wanted, confirmed=request["confirmed"]
        )
        for _, event in events:
            if not stop.training:
                stop.training = True
                refuse_more_than_available()  # once the run is built: CUDA has reserved its address space by then
            if isinstance(event, Logged):
                numbers = {name: value for name, value in event.record.items() if isinstance(value, int | float)}
                print(*(f"{name}={shown(value)}" for name, value in numbers.items()), flush=True)
    except TinygradChatError as error:
        print(error, flush=True)
        return error.exit_code
    return stop.explain()


if __name__ == "__main__":
    sys.exit(main())
