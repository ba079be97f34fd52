"""A prompt from standard input: `echo "The class" | tgc sample`, `tgc sample --prompt - < file`."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinygrad_chat.errors import UsageError
from tinygrad_chat.text.standard_input import STANDARD_INPUT

LONGEST = 16 << 20  # bytes; no model reads more
PATIENCE = 1.0  # seconds before saying what the command is waiting for


def read_prompt(given: str | None, *, say: Callable[[str], None]) -> str:
    """Return the `given` prompt; for `-`, standard input; for None, standard input if it is a pipe or a file.

    Strips the newline that `echo` adds. Raises UsageError if the input is closed, too long or not UTF-8.
    """
    if given not in (None, STANDARD_INPUT):
        return given
    if given is None and not _is_handed_in():
        return ""
    if sys.stdin is None:
        raise UsageError("--prompt -: standard input is closed; give the text itself")
    with _explained_wait(say):
        content = sys.stdin.buffer.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise UsageError(f"--prompt -: expected at most {LONGEST >> 20} MiB of text, received more")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--prompt -: byte 0x{content[error.start]:02x} at offset {error.start} of standard input is not UTF-8"
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def _is_handed_in() -> bool:
    """Return whether standard input is a pipe or a file, not a terminal or the null device of a service."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or replaced by an object without a descriptor
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


@contextmanager
def _explained_wait(say: Callable[[str], None]) -> Iterator[None]:
    """Say what the command is waiting for: at once on a terminal, elsewhere after PATIENCE seconds."""
    end = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
    if sys.stdin.isatty():
        say(f"write the prompt and end it with {end}")
    timer = threading.Timer(
        PATIENCE, say, ["waiting for the prompt from standard input; --prompt '' starts without one"]
    )
    timer.daemon = True
    if not sys.stdin.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
