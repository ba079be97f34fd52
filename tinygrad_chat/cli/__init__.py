"""The command `tgc`: one file a command, and the only place that knows typer and rich."""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Sequence

from tinygrad_chat.cli.interruption import Interrupted, end_at_once, on_signals, say_interrupted, unwind


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `tgc` and end the process with the command's exit code; a user's mistake prints one line, no traceback."""
    on_signals(end_at_once)  # before all that takes a while to import
    atexit.register(on_signals, signal.SIG_IGN)  # the last of its kind: what follows is the interpreter's own end
    from tinygrad_chat.cli.app import run
    from tinygrad_chat.cli.streams import open_standard_streams

    open_standard_streams()
    try:
        on_signals(unwind)
        code = run(arguments)
        on_signals(end_at_once)
    except Interrupted as interrupted:
        say_interrupted(interrupted.number)
        code = interrupted.exit_code
    sys.exit(code)
