"""Files, compressed or not, as streams of bytes. What cannot be read is a DataError in one line."""

from __future__ import annotations

import gzip
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
ZSTANDARD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Provide what is in a file, uncompressed. Raises DataError where it cannot be read, and as `needed` does."""
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
            yield file
    except damages as error:
        raise DataError(f"{path}: is damaged, or no {kind} file ({error}); make it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def needed(module: str, path: Path | str, *, extra: str) -> ModuleType:
    """Return a module that a file needs. Raises BackendError, naming the extra, where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        library = "pyarrow" if module.startswith("pyarrow") else module
        raise BackendError(f"--data {path}: needs {library}, the extra {extra}: pip install {library}") from error
