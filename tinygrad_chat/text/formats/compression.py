"""Files, compressed or not, as streams of bytes. What cannot be read is a DataError in one line."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from tinygrad_chat.errors import BackendError, DataError

COMPRESSED = (".gz", ".zst")
MOST_TIMES = 200  # as long as its compressed file, which text hardly ever is
ALWAYS = 64 << 20  # bytes that are read of any file, however small
ZSTANDARD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Provide what is in a file, uncompressed.

    Raises DataError where it cannot be read or, compressed, is MOST_TIMES as long, and as `needed` does.
    """
    kind = path.suffix.lower()
    opening: Any = Path.open
    damages: tuple[type[Exception], ...] = ()
    if kind == ".gz":
        opening, damages = gzip.open, (EOFError, gzip.BadGzipFile, zlib.error)
    elif kind == ".zst":
        zstandard = needed(ZSTANDARD, path, extra="zstd")
        opening, damages = zstandard.open, (EOFError, zstandard.ZstdError)
    try:
        with opening(path, "rb") as file:
            yield io.BufferedReader(_Bounded(file, path), 1 << 17) if damages else file
    except damages as error:
        raise DataError(f"{path}: is damaged, or no {kind} file ({error}); make it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Bounded(io.RawIOBase):
    """What is in a compressed file, up to a length that text hardly ever has."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._left = ALWAYS + MOST_TIMES * path.stat().st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received = self._file.readinto(buffer)  # pyright: ignore[reportAttributeAccessIssue]
        self._left -= received
        if self._left < 0:
            raise DataError(
                f"{self._path}: holds more than {MOST_TIMES} times as much as its compressed file, as no text does; "
                "unpack it first if it is right"
            )
        return received


def needed(module: str, path: Path | str, *, extra: str) -> ModuleType:
    """Return a module that a file needs. Raises BackendError, naming the extra, where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        library = "pyarrow" if module.startswith("pyarrow") else module
        raise BackendError(f"--data {path}: needs {library}, the extra {extra}: pip install {library}") from error
