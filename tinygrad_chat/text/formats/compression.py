"""Opens files, compressed or not, as streams of bytes. What cannot be read raises a DataError of one line."""

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
MAX_TIMES = 200  # times the size of the compressed file, which text hardly ever exceeds
ALWAYS = 64 << 20  # bytes allowed on top of that, however small the file
ZSTANDARD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed if its name says that it is compressed.

    Raises DataError if it cannot be read or decompresses to over MAX_TIMES its size, BackendError as `needed` does.
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
        raise DataError(f"{path}: is damaged, or not a {kind} file ({error}); create it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Bounded(io.RawIOBase):
    """The contents of a compressed file, up to a length that text hardly ever has."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._left = ALWAYS + MAX_TIMES * path.stat().st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received = self._file.readinto(buffer)  # pyright: ignore[reportAttributeAccessIssue]
        self._left -= received
        if self._left < 0:
            raise DataError(
                f"{self._path}: holds more than {MAX_TIMES} times its compressed size, which text never does; "
                "unpack it yourself if it is valid"
            )
        return received


def needed(module: str, path: Path | str, *, extra: str) -> ModuleType:
    """Import a module that a file needs. Raises BackendError, naming the extra, if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        library = "pyarrow" if module.startswith("pyarrow") else module
        raise BackendError(f"--data {path}: needs {library}, the extra {extra}: pip install {library}") from error
