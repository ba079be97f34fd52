"""Arrays in safetensors files: the header is checked first, and the data is memory-mapped until it is used.

8 bytes     the length of the header
the header  JSON: the dtype, shape and offsets of each array; strings under __metadata__
the rest    the data of the arrays, one after another
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from safetensors.numpy import save

from tinygrad_chat.errors import FormatError
from tinygrad_chat.files import open_plain
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.runs.stored import StoredArray
from tinygrad_chat.schema import Count, checked, parse_json

LARGEST_HEADER = 16 << 20  # bytes: a hundred thousand arrays
MAX_DIMENSIONS = 8
METADATA = "__metadata__"
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
"""safetensors' dtypes -> NumPy's; for bfloat16, which NumPy lacks, the raw bits."""

SAVED = ("F64", "F32", "F16", "I64", "I32", "U8")
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Entry:
    """A header's entry for an array: `data_offsets` are its first byte, counted from the header's end, and its end."""

    dtype: Literal["F64", "F32", "F16", "BF16", "I64", "I32", "U8"]
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def widened(self) -> int:
        """The extra bytes of memory that reading the array takes, besides its pages of the file."""
        return 4 * self.size if self.dtype == "BF16" else 0


@dataclass(frozen=True)
class Header:
    """All arrays of a file by name, its metadata strings, and the byte at which the data begins."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    begin: int

    @property
    def size(self) -> int:
        """The number of elements of all arrays."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def memory(self) -> int:
        """The bytes of memory that reading all arrays takes: their data in the file, and copies in a wider dtype."""
        return sum(entry.data_offsets[-1] - entry.data_offsets[0] + entry.widened for entry in self.entries.values())


def to_safetensors(arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file of the arrays, contiguous or not.

    The library, as of 0.8, ignores strides: of a transposed or strided array it would write the wrong numbers.
    """
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)


def read_header(path: Path, *, follow: bool = False) -> Header:
    """Return the header of a file, checked against the file's size. Raises OSError and FormatError."""
    with open_plain(path, follow=follow) as file:
        return _header(file, path.name)


def _header(file: IO[bytes], source: str) -> Header:
    length = int.from_bytes(file.read(8), "little")
    rest = os.fstat(file.fileno()).st_size - 8
    if not 2 <= length <= min(rest, LARGEST_HEADER):
        raise FormatError(f"{source}: expected a header in its {rest:,} bytes, received one of {length:,}")
    found = parse_json(file.read(length), dict[str, Any], source=source)
    metadata = checked(found.pop(METADATA, {}), dict[str, str], source=f"{source}: {METADATA}")
    entries = checked(found, dict[str, Entry], source=source)
    _expect_filled(entries, rest - length, source)
    return Header(entries, metadata, 8 + length)


def _expect_filled(entries: Mapping[str, Entry], size: int, source: str) -> None:
    """Raise FormatError unless each array's offsets match its dtype and shape, and all arrays fill `size` bytes without
    a gap."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        wanted = entry.size * np.dtype(TYPES[entry.dtype]).itemsize
        if len(entry.shape) > MAX_DIMENSIONS or entry.data_offsets != (end, end + wanted):
            raise FormatError(f"{source}: {short_repr(name)}: its type, shape and offsets do not match")
        end += wanted
    if end != size:
        raise FormatError(f"{source}: expected {end:,} bytes of numbers, received {size:,}")


def map_file(
    path: Path, *, most: int, types: Collection[str] = SAVED, follow: bool = False
) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """Return the arrays of a file by name, and its metadata; the file may have at most `most` bytes.

    The arrays, each of one of the `types`, are read-only memory-mapped views, except for bfloat16, which is converted
    to float32. Raises OSError, as `open_plain` does, and FormatError.
    """
    stored, metadata = map_stored(path, most=most, types=types, follow=follow)
    return {name: np.asarray(array) for name, array in stored.items()}, metadata


def map_stored(
    path: Path, *, most: int | None = None, types: Collection[str] = SAVED, follow: bool = False
) -> tuple[dict[str, StoredArray], Mapping[str, str]]:
    """Like `map_file`, but convert a bfloat16 array only when it is used."""
    with open_plain(path, most=most, follow=follow) as file:
        header = _header(file, path.name)
        for name, entry in header.entries.items():
            if entry.dtype not in types:
                expected = " or ".join(types)
                raise FormatError(f"{path.name}: {short_repr(name)}: expected {expected}, received {entry.dtype}")
        content = np.memmap(file, np.uint8, mode="r")[header.begin :].view(np.ndarray)
    return {name: _stored(entry, content) for name, entry in header.entries.items()}, header.metadata


def _stored(entry: Entry, content: np.ndarray) -> StoredArray:
    first, last = entry.data_offsets
    numbers = content[first:last].view(TYPES[entry.dtype]).reshape(entry.shape)
    stored = StoredArray(entry.shape, lambda: numbers, entry.dtype)
    return stored.map(entry.shape, _widened) if entry.dtype == "BF16" else stored


def _widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)
