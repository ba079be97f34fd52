"""The `tgc` command: one file per subcommand. Only this package uses typer and rich."""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Sequence

from tinygrad_chat.cli.interruption import Interrupted, end_at_once, on_signals, say_interrupted, unwind


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `tgc` and exit with the command's exit code; a user's mistake prints one line, not a traceback."""
    on_signals(end_at_once)  # before the slow imports
    atexit.register(on_signals, signal.SIG_IGN)  # registered first, so it runs last, just before the shutdown
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
