"""Write GGUF files: settings, then each array's description, then the data, one array at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinygrad_chat.files import explained, partial_file
from tinygrad_chat.interchange.gguf import ALIGNMENT, LIST, MAGIC, NUMBERS, TEXT, VERSIONS
from tinygrad_chat.interchange.gguf_blocks import NUMBER_OF, TYPES, packed

KINDS = {
    np.dtype(np.uint32): 4,
    np.dtype(np.int32): 5,
    np.dtype(np.float32): 6,
    np.dtype(np.bool_): 7,
    np.dtype(np.uint64): 10,
}
"""GGUF's number for each type of setting that is written."""


def write_gguf(path: Path, settings: Mapping[str, Any], arrays: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """Write a file of settings and arrays, each array in the format that `kinds` has for its name.

    A setting is a string, a NumPy number, a Python bool or float, a list of strings, or an array of numbers. Raises
    StorageError, and then leaves no file.
    """
    with explained(path), partial_file(path) as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(arrays), len(settings)))
        for key, value in settings.items():
            file.write(_text(key))
            file.write(_value(value))
        offset = 0
        for name, array in arrays.items():
            kind = NUMBER_OF[kinds[name]]
            file.write(_text(name) + struct.pack("<I", len(array.shape)))
            file.write(struct.pack(f"<{len(array.shape)}Q", *reversed(array.shape)))
            file.write(struct.pack("<IQ", kind, offset))
            offset += _aligned(TYPES[kind].bytes_of(array.size))
        _fill(file)
        for name, array in arrays.items():
            file.write(packed(np.asarray(array), kinds[name]))
            _fill(file)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _fill(file: IO[bytes]) -> None:
    at = file.seek(0, os.SEEK_CUR)
    file.write(bytes(_aligned(at) - at))


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", LIST, TEXT, len(value)) + b"".join(_texts(value))
    array = np.asarray(value, np.float32) if isinstance(value, float) else np.asarray(value)
    kind = KINDS[array.dtype]
    if array.ndim:
        return struct.pack("<IIQ", LIST, kind, len(array)) + array.tobytes()
    return struct.pack("<I", kind) + struct.pack(NUMBERS[kind], array.item())


def _texts(values: Iterable[str]) -> Iterable[bytes]:
    return map(_text, values)
