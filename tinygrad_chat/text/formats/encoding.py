r"""Detects the encoding of bytes from their beginning, and decodes them with every line end as \n.

A byte-order mark decides. Without one it is UTF-8; UTF-16 if every other byte of Western text is zero; the encoding
that an HTML page declares; or Windows-1252, which includes Latin-1, if single accented letters stand among others.
Anything else is not text: a wrong guess would silently be trained on.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tinygrad_chat.errors import ConfigError, DataError

PIECE = 1 << 20  # bytes read at a time; the encoding is detected from the first piece

_MARKS = {
    codecs.BOM_UTF8: ("utf-8", "UTF-8"),
    codecs.BOM_UTF32_LE: ("utf-32-le", "UTF-32"),  # begins with UTF-16's, so it is tried first
    codecs.BOM_UTF32_BE: ("utf-32-be", "UTF-32"),
    codecs.BOM_UTF16_LE: ("utf-16-le", "UTF-16"),
    codecs.BOM_UTF16_BE: ("utf-16-be", "UTF-16"),
}
_FOREIGN = {
    b"%PDF-": "is a PDF; convert it to text, as with pdftotext",
    b"%!PS": "is PostScript; convert it to text",
    b"{\\rtf": "is rich text; save it as plain text",
    b"PK\x03\x04": "is a zip archive or a zipped document; unpack it, or save it as plain text",
    b"BZh": "is compressed with bzip2; unpack it",
    b"\xfd7zXZ": "is compressed with xz; unpack it",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"\x1f\x8b": "is compressed with gzip; rename it to end in .gz",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; rename it to end in .zst",
    b"PAR1": "is Parquet; rename it to end in .parquet",
    b"\x89PNG": "is an image; name a text file",
    b"\xff\xd8\xff": "is an image; name a text file",
    b"GIF8": "is an image; name a text file",
}
"""The beginnings of files that are not plain text, though some would pass for it, and what to do about them."""

_CONTROLS = bytes({*range(32), 127} - set(b"\t\n\f\r")) + b"\x81\x8d\x8f\x90\x9d"  # the last five: not in cp1252
_UTF8_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_SIGN_IN_A_WORD = re.compile(rb"[A-Za-z][\xa1-\xa9\xab\xac\xae-\xb6\xb8\xb9\xbb-\xbf\xd7\xf7](?=[A-Za-z])")
_DECLARED = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)


@dataclass(frozen=True)
class Encoding:
    """How a file's bytes are decoded: Python's `codec`, its common name, and the byte-order `mark` before the text."""

    codec: str
    name: str
    mark: bytes = b""


UTF8 = Encoding("utf-8", "UTF-8")


def named_encoding(name: str) -> Encoding:
    """Return the encoding of that name, such as "latin-1". Raises ConfigError if Python knows none."""
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        raise ConfigError(f"--encoding: expected a name such as utf-8, latin-1 or cp1251, received {name!r}") from None
    return Encoding(codecs.lookup(name).name, name)


def find_encoding(beginning: bytes, named: Encoding | None = None) -> Encoding | None:
    """Return a file's encoding, told by its first PIECE of bytes, None if they are not text; a `named` one prevails.

    >>> find_encoding("déjà vu".encode()).name, find_encoding("\\ufefftext".encode("utf-16-le")).name
    ('UTF-8', 'UTF-16')
    >>> find_encoding("Voilà, un café.".encode("latin-1")).name, find_encoding(bytes(range(256)))
    ('Windows-1252', None)
    """
    mark = next((mark for mark in _MARKS if beginning.startswith(mark)), b"")
    if named is not None:
        fits = mark and _MARKS[mark][0].startswith(named.codec)
        named = Encoding(_MARKS[mark][0] if fits else named.codec, named.name, mark if fits else b"")
        binary = b"\0" in beginning and b"\0" not in "a".encode(named.codec)
        return None if binary or foreign_kind(beginning) else named
    if mark:
        return Encoding(*_MARKS[mark], mark)
    if foreign_kind(beginning):
        return None
    if b"\0" in beginning:
        return _utf16_without_mark(beginning)
    if _decodes(beginning):
        return UTF8
    declared = _DECLARED.search(beginning[:2048])
    if declared is not None:
        try:
            return named_encoding(declared[1].decode("ascii"))
        except ConfigError:
            pass
    return Encoding("cp1252", "Windows-1252") if _is_western(beginning) else None


def foreign_kind(beginning: bytes) -> str:
    """Return what kind of file begins like this, and what to do; empty if it may be text."""
    return next((kind for magic, kind in _FOREIGN.items() if beginning.startswith(magic)), "")


def decode(file: BinaryIO, encoding: Encoding | None, path: Path, *, any_bytes: bool = False) -> Iterator[str]:
    r"""Yield the rest of a file as text, every line end as \n.

    Bytes that do not fit the encoding raise DataError, with their offset; with `any_bytes`, they become surrogate
    escapes. Without an encoding the file is not text: it is read as UTF-8, and its line ends stay.
    """
    known = encoding or UTF8
    errors = "surrogateescape" if any_bytes else "strict"
    decoder = codecs.getincrementaldecoder(known.codec)(errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=encoding is not None)
    start = len(file.read(len(known.mark)))  # offset of the next bytes in the file
    while True:
        piece = file.read(PIECE)
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, not piece)
        except UnicodeDecodeError as error:
            raise _undecodable(error, path, known, start - held, foreign_kind(piece) if not start else "") from None
        start += len(piece)
        yield newlines.decode(text, not piece)
        if not piece:
            return


def read_beginning(file: BinaryIO) -> bytes:
    """Return a file's first PIECE of bytes, or all that it has."""
    beginning = b""
    while len(beginning) < PIECE and (more := file.read(PIECE - len(beginning))):
        beginning += more
    return beginning


def _undecodable(error: UnicodeDecodeError, path: Path, encoding: Encoding, start: int, kind: str) -> DataError:
    if kind:
        return DataError(f"{path}: {kind}, or train on its bytes with --tokenizer bytes")
    return DataError(
        f"{path}: byte 0x{error.object[error.start]:02x} at offset {start + error.start} is not {encoding.name}; name "
        f"the file's encoding, as in --encoding latin-1, remove the file, or train with --tokenizer bytes"
    )


def _utf16_without_mark(beginning: bytes) -> Encoding | None:
    """Return the UTF-16 in which Western text has a zero in nearly every pair of bytes, None if it is neither."""
    even, odd = beginning[::2], beginning[1::2]
    for zeros, others, codec in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        text = len(others.translate(None, b"\0" + _CONTROLS)) == len(others) >= 4
        if text and zeros.count(0) > 0.8 * len(zeros):
            return Encoding(codec, "UTF-16")
    return None


def _decodes(beginning: bytes) -> bool:
    """Return whether these bytes are UTF-8; the last character of a full piece may be cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning, len(beginning) < PIECE)
    except UnicodeDecodeError:
        return False
    return True


def _is_western(beginning: bytes) -> bool:
    """Return whether these bytes, which are not UTF-8, are likely to be Windows-1252."""
    if len(beginning.translate(None, _CONTROLS)) < len(beginning):
        return False
    high = re.findall(rb"[\x80-\xff]+", beginning)
    count = sum(map(len, high))
    alone = count <= 1.5 * len(high) and count <= 0.3 * len(beginning)  # Cyrillic, Greek or Chinese come in runs
    damaged = 4 * len(_UTF8_CHARACTER.findall(beginning)) > len(high)  # UTF-8 with an error in it
    return alone and not damaged and 10 * len(_SIGN_IN_A_WORD.findall(beginning)) <= len(high)
