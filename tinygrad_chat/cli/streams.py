"""Standard output and error, and what becomes of their errors: a full disk, a terminal or a reader that has gone."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class StandardStream(io.TextIOWrapper):
    """A standard stream whose OSErrors name it. After one, what is written goes nowhere and fails no more.

    A character that its encoding lacks is shown as a question mark.
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
        if text == "":  # typer asks in this way what a stream is, and would keep the error to itself
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
    """A stream for work that goes on when nobody can watch it any more: it keeps its first error, and raises none."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or do nothing once that has failed."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing once that has failed."""
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
    """Tell the user something beside the results, on standard error."""
    print(f"tgc: {line}", file=sys.stderr)


def open_standard_streams() -> None:
    """Make standard output and error name their errors. One that was closed, as for a service, leads nowhere."""
    sys.stdout = _open(sys.stdout, "standard output")
    sys.stderr = _open(sys.stderr, "standard error")


def _open(stream: TextIO | None, title: str) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w")
    return StandardStream(stream, title) if isinstance(stream, io.TextIOWrapper) else stream
