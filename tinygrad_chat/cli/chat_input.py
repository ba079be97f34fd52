"""User input to a chat: one line or several, from a terminal with a history of earlier input."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinygrad_chat.cli.interruption import raise_on_ctrl_c
from tinygrad_chat.errors import StorageError
from tinygrad_chat.files import cache_folder, read_plain, write_atomic

PROMPT, MORE = "> ", ". "
STYLED = "\x01\x1b[1;36m\x02{}\x01\x1b[0m\x02"  # \x01 and \x02 tell readline what has no width
QUOTES = '"""'
HISTORY = "chat-history.txt"
LONGEST_HISTORY = 500  # lines
LARGEST_HISTORY = 1 << 20  # bytes

ReadLine = Callable[[str], str]
"""Shows a prompt and returns the line typed. Raises EOFError at the end of input, KeyboardInterrupt for Ctrl-C."""


def read_message(read_line: ReadLine) -> str:
    r"""Read a message: one line; several, each but the last ending in a backslash; or all between two `\"""`.

    >>> lines = iter(["one \\", "two"])
    >>> read_message(lambda prompt: next(lines))
    'one \ntwo'
    """
    line = read_line(PROMPT)
    if line.lstrip().startswith(QUOTES):
        lines = [line.lstrip().removeprefix(QUOTES)]
        while not lines[-1].rstrip().endswith(QUOTES):
            lines.append(read_line(MORE))
        return "\n".join([*lines[:-1], lines[-1].rstrip().removesuffix(QUOTES)]).strip("\n")
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(read_line(MORE))
    return "\n".join(lines)


class TerminalInput:
    """Lines from a terminal, with editing and history by `readline` where Python has it."""

    def __init__(self, readline: Any = None, *, styled: bool = False) -> None:
        self._readline = readline
        self._styled = styled and readline is not None

    def __call__(self, prompt: str, *, prefill: str = "") -> str:
        """Return the line typed after the prompt; `prefill` puts a text there to edit."""
        with raise_on_ctrl_c(), self._prefilled(prefill):
            if sys.stdout.isatty():
                return input(STYLED.format(prompt) if self._styled else prompt)
            print(prompt, end="", file=sys.stderr, flush=True)  # standard output is for answers alone
            return input()

    @property
    def typed(self) -> str:
        """What was on the line when Ctrl-C was pressed."""
        return self._readline.get_line_buffer() if self._readline else ""

    @contextmanager
    def _prefilled(self, text: str) -> Iterator[None]:
        if self._readline is None or not text:
            yield
            return
        self._readline.set_startup_hook(lambda: self._readline.insert_text(text))
        try:
            yield
        finally:
            self._readline.set_startup_hook()


@contextmanager
def open_terminal_input(*, styled: bool = False) -> Iterator[TerminalInput]:
    """Provide terminal input with a `styled` prompt and the history of earlier chats, which is saved on exit.

    A history that cannot be read or saved is ignored: nothing depends on it.
    """
    try:
        import readline
    except ImportError:  # as on Windows
        yield TerminalInput()
        return
    readline.set_auto_history(True)
    readline.clear_history()
    for line in _read_history():
        readline.add_history(line)
    try:
        yield TerminalInput(readline, styled=styled)
    finally:
        items = range(1, readline.get_current_history_length() + 1)
        _keep_history([readline.get_history_item(number) or "" for number in items])


def _read_history() -> list[str]:
    with contextlib.suppress(OSError, StorageError, UnicodeDecodeError):
        return read_plain(cache_folder() / HISTORY, most=LARGEST_HISTORY).decode().splitlines()[-LONGEST_HISTORY:]
    return []


def _keep_history(lines: list[str]) -> None:
    kept = [line for line in lines if line.strip()][-LONGEST_HISTORY:]
    content = "".join(f"{line}\n" for line in kept).encode(errors="replace")[-LARGEST_HISTORY:]
    with contextlib.suppress(OSError, StorageError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomic(cache_folder() / HISTORY, content)
