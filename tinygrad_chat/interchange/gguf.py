"""Read GGUF files, llama.cpp's format: the header is checked first, and the data is memory-mapped.

4 bytes, GGUF       then the version, and the numbers of tensors and keys
keys and values     strings, numbers and lists of them: the model's settings and its whole tokenizer
tensors             the name, shape, type and offset of each
data                one tensor after the other, each at a multiple of `general.alignment`

A file is untrusted input: every count and length is checked against the rest of the header before it is used, and the
size of a header is bounded.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.errors import FormatError
from tinygrad_chat.files import open_plain
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.interchange.gguf_blocks import TYPES, BlockType
from tinygrad_chat.runs.stored import StoredArray

MAGIC = b"GGUF"
VERSIONS = (2, 3)
LARGEST_HEADER = 64 << 20  # bytes; a vocabulary of 256,000 tokens with its merges takes a quarter of this
MAX_TENSORS = 1 << 16
MAX_KEYS = 1 << 12
MAX_TEXTS = 1 << 21  # strings in all lists of a header: each has an overhead of some fifty bytes
MAX_DIMENSIONS = 4
LONGEST_NAME = 1 << 10  # bytes
ALIGNMENT = 32  # bytes, if a file does not state it

NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""The struct format of each type of number, by GGUF's number for the type."""
TEXT, LIST = 8, 9


@dataclass(frozen=True)
class GGUF:
    """A file's settings by name (strings, numbers and lists of them), and its arrays, which stay in the file."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredArray]

    def get(self, key: str, kind: type[Any], default: Any = None) -> Any:
        """Return a setting of that type, or the default if it is missing. Raises FormatError for another type."""
        found = self.metadata.get(key)
        if found is None:
            return default
        if type(found) is not kind and not (kind is float and type(found) is int):
            raise FormatError(f"{self.path.name}: {key}: expected {kind.__name__}, received {short_repr(found)}")
        return found


def is_gguf(path: Path) -> bool:
    """Return whether a file begins with GGUF's magic number. Raises OSError if it cannot be read."""
    with open_plain(path, follow=True) as file:
        return file.read(len(MAGIC)) == MAGIC


def read_gguf(path: Path) -> GGUF:
    """Return a file's content, its data memory-mapped. Raises OSError, and FormatError if the file is invalid."""
    with open_plain(path, follow=True) as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise FormatError(f"{path.name}: is empty") from None
    header = _Header(content, path.name)
    metadata, tensors = header.read()
    numbers = np.frombuffer(content, np.uint8)
    return GGUF(path, metadata, {each.name: _stored(each, numbers) for each in tensors})


@dataclass(frozen=True)
class _Tensor:
    """A tensor as described in the header. `begin` is its first byte in the file; rows come first in `shape`."""

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    begin: int
    length: int


def _stored(tensor: _Tensor, content: np.ndarray) -> StoredArray:
    part = content[tensor.begin : tensor.begin + tensor.length]
    return StoredArray(tensor.shape, lambda: tensor.kind.read(part, tensor.shape), tensor.kind.name)


class _Header:
    """Reads a header from the beginning of `content`, never beyond its end."""

    def __init__(self, content: mmap.mmap, source: str) -> None:
        self._content, self._source, self._at = content, source, 0
        self._end = min(len(content), LARGEST_HEADER)
        self._texts = 0

    def read(self) -> tuple[dict[str, Any], list[_Tensor]]:
        """Return the settings, and the tensors in the order of their data."""
        if self._take(4) != MAGIC:
            raise self._unfit("expected a GGUF file, received another")
        version = self._number("<I")
        if version not in VERSIONS:
            swapped = "; its bytes are in big-endian order" if version >> 16 else ""
            raise self._unfit(f"expected version {' or '.join(map(str, VERSIONS))}, received {version}{swapped}")
        tensors, keys = self._count("tensors", MAX_TENSORS), self._count("keys", MAX_KEYS)
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._name("key")
            if key in metadata:
                raise self._unfit(f"{short_repr(key)} occurs twice")
            metadata[key] = self._value(key, self._number("<I"))
        if metadata.get("split.count", 0) not in (0, 1):
            raise self._unfit(f"is one of {short_repr(metadata['split.count'])} parts; join them first")
        stated = [self._stated() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 16 or alignment & (alignment - 1):
            raise self._unfit(f"general.alignment: expected a power of two, received {short_repr(alignment)}")
        return metadata, list(self._placed(stated, alignment))

    def _stated(self) -> tuple[str, tuple[int, ...], BlockType, int]:
        """Return the name, shape, type and offset of the next tensor."""
        name = self._name("tensor")
        dimensions = self._number("<I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self._unfit(f"{short_repr(name)}: expected 1 to {MAX_DIMENSIONS} dimensions, received {dimensions}")
        shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
        number, offset = self._number("<I"), self._number("<Q")
        kind = TYPES.get(number)
        if kind is None:
            known = ", ".join(each.name for each in TYPES.values())
            raise self._unfit(f"{short_repr(name)}: has the unknown type {number}; known: {known}")
        if shape[-1] % kind.numbers or not all(shape):
            raise self._unfit(f"{short_repr(name)}: rows of {kind.numbers} numbers each do not make {shape}")
        return name, shape, kind, offset

    def _placed(self, stated: list[tuple[str, tuple[int, ...], BlockType, int]], alignment: int) -> Iterator[_Tensor]:
        """Yield the tensors. Their data must be back to back, up to alignment, so that none overlaps another."""
        begin, due, seen = -(-self._at // alignment) * alignment, 0, set[str]()
        for name, shape, kind, offset in sorted(stated, key=lambda each: each[-1]):
            numbers = 1
            for size in shape:
                numbers *= size
            length = kind.bytes_of(numbers)
            if name in seen:
                raise self._unfit(f"{short_repr(name)} occurs twice")
            if offset != due or begin + due + length > len(self._content):
                raise self._unfit(f"{short_repr(name)}: its type, its shape and its place do not fit together")
            seen.add(name)
            yield _Tensor(name, shape, kind, begin + due, length)
            due += -(-length // alignment) * alignment

    def _value(self, key: str, kind: int) -> Any:
        if kind in NUMBERS:
            return self._number(NUMBERS[kind])
        if kind == TEXT:
            return self._text(self._number("<Q"))
        if kind != LIST:
            raise self._unfit(f"{short_repr(key)}: has the unknown type {kind}")
        of, length = self._number("<I"), self._number("<Q")
        if of in NUMBERS:
            size = struct.calcsize(NUMBERS[of])
            self._expect(length * size)
            return np.frombuffer(self._take(length * size), NUMBERS[of])
        if of != TEXT:
            raise self._unfit(f"{short_repr(key)}: expected a list of texts or numbers, received one of type {of}")
        self._expect(8 * length)
        self._texts += length
        if self._texts > MAX_TEXTS:
            raise self._unfit(f"expected at most {MAX_TEXTS:,} texts, received more")
        return list(self._many_texts(length))

    def _many_texts(self, count: int) -> Iterator[str]:
        """Yield `count` strings. A vocabulary has a hundred thousand of them, so there is no function call for each."""
        read, content, at, end = struct.Struct("<Q").unpack_from, self._content, self._at, self._end
        try:
            for _ in range(count):
                (length,) = read(content, at)
                at += 8
                if length > end - at:
                    raise self._unfit(f"expected {length:,} more bytes of its header, received {end - at:,}")
                yield content[at : at + length].decode()
                at += length
        except UnicodeDecodeError as error:
            raise self._unfit(f"a text is not UTF-8 ({error.reason})") from None
        except struct.error:
            raise self._unfit("ends within a list of texts") from None
        self._at = at

    def _name(self, what: str) -> str:
        length = self._number("<Q")
        if not 1 <= length <= LONGEST_NAME:
            raise self._unfit(f"expected the name of a {what}, received one of {length:,} bytes")
        return self._text(length)

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._unfit(f"a text is not UTF-8 ({error.reason})") from None

    def _count(self, what: str, most: int) -> int:
        found = self._number("<Q")
        if found > most:
            raise self._unfit(f"expected at most {most:,} {what}, received {found:,}")
        return found

    def _number(self, form: str) -> Any:
        (found,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return found

    def _take(self, length: int) -> bytes:
        self._expect(length)
        self._at += length
        return self._content[self._at - length : self._at]

    def _expect(self, length: int) -> None:
        if length > self._end - self._at:
            raise self._unfit(f"expected {length:,} more bytes of its header, received {self._end - self._at:,}")

    def _unfit(self, message: str) -> FormatError:
        return FormatError(f"{self._source}: {message}")
