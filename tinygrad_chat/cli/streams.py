"""Standard output and error, with control characters escaped and I/O errors named.

Names, texts and messages come from models, corpora, files and other programs, and a terminal obeys any escape sequence
that it is sent. So whatever a command writes goes through an EscapedStream. Only our own escape sequences, such as
colours, and the text of `--raw` bypass it, through `as_is`.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from tinygrad_chat.errors import UsageError
from tinygrad_chat.formatting import as_json, one_line, printable


class EscapedStream:
    """A stream on which control characters become visible escapes, in a pipe as on a terminal."""

    def __init__(self, stream: Any) -> None:
        self.as_is = as_is(stream)

    def write(self, text: str) -> int:
        """Write a text, escaped."""
        self.as_is.write(printable(text))
        return len(text)

    def flush(self) -> None:
        """Flush, as any stream does."""
        self.as_is.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.as_is, name)


def as_is(stream: Any) -> Any:
    """Return the stream below an EscapedStream, for our own escape sequences and for text already escaped."""
    return stream.as_is if isinstance(stream, EscapedStream) else stream


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Within this context, standard output and error are EscapedStreams, even if something has replaced them."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, EscapedStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class StandardStream(io.TextIOWrapper):
    """A standard stream whose OSErrors name it. After the first, further writes are discarded without an error.

    A character that its encoding lacks becomes a question mark.
    """

    def __init__(self, stream: TextIO, title: str) -> None:
        buffered = not getattr(stream, "write_through", False)
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="replace",
            line_buffering=stream.line_buffering,  # pyright: ignore[reportArgumentType]
            write_through=not buffered,
        )
        self._title = title

    def write(self, text: str, /) -> int:
        """Write, as any stream does."""
        if text == "":  # typer probes streams this way, and would swallow the error
            return 0
        with self._named():
            return super().write(text)

    def flush(self) -> None:
        """Flush, as any stream does."""
        with self._named():
            super().flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = self._title
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            raise


class PatientStream:
    """A stream for work that must go on when its output is lost: it keeps its first error and raises none."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or do nothing after a failure."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing after a failure."""
        self._try(self._stream.flush)

    def _try(self, action: Any) -> None:
        if self.error is None:
            try:
                action()
            except OSError as error:
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say(line: str) -> None:
    """Print a message to the user in one line on standard error, apart from the results."""
    print(one_line(f"tgc: {line}"), file=sys.stderr)


def stream_of_texts(*, raw: bool) -> TextIO:
    """Return standard output, for text from a model or a tokenizer; with `raw`, it is not escaped.

    Raises UsageError for `raw` on a terminal.
    """
    if raw and sys.stdout.isatty():
        raise UsageError("--raw: a terminal would act on control characters; write to a file or a pipe")
    return as_is(sys.stdout) if raw else sys.stdout


def print_json(value: Any) -> None:
    """Print a value as JSON, in one line."""
    print(as_json(value))


def open_standard_streams() -> None:
    """Make standard output and error escape their text and name their errors, and print each warning in one line.

    A stream that was closed, as for a service, is replaced by the null device.
    """
    sys.stdout = _open(sys.stdout, "standard output")
    sys.stderr = _open(sys.stderr, "standard error")
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")


def _open(stream: TextIO | None, title: str) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w")
    opened = StandardStream(stream, title) if isinstance(stream, io.TextIOWrapper) else stream
    return cast(TextIO, EscapedStream(opened))
