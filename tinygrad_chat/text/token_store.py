"""A tokenized corpus on disk: what a text takes long to become, once.

A store is a folder of three files:

    tokens.bin      every document's tokens, each document after a BOS, in the smallest unsigned type that holds them
    documents.bin   the index in it at which each document begins, int64
    metadata.json   which corpus and which tokenizer, how many tokens, and a checksum of all that

It has its name only once it is whole and on the disk, so nobody meets half of one. Opening it checks that the metadata
are what was written, that they belong to the folder's name and that both files are as long as they say: this tells
what was cut off, mixed up or edited. What is in the files is not read again: it would take as long as reading the text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.files import UnfitFileError, open_plain, try_lock
from tinygrad_chat.schema import Count, checked, read_json
from tinygrad_chat.text.finding import LeftOut
from tinygrad_chat.text.reading import Contents, Reading, token_type, write_characters, write_tokens
from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state

FORMAT = 1  # to be raised when the same corpus and tokenizer would give other files
TOKENS, DOCUMENTS, METADATA = "tokens.bin", "documents.bin", "metadata.json"
LARGEST_METADATA = 32 << 20  # bytes


@dataclass(frozen=True)
class Metadata:
    """What metadata.json holds, beside the checksum of all of it."""

    format: int
    source: str
    contents: Contents
    tokenizer: dict[str, Any]
    dtype: str
    tokens: Count


@dataclass(frozen=True)
class TokenStore:
    """A corpus as tokens (N,), each document after a BOS, with the index of each BOS: `document_starts` (documents,).

    Both arrays are memory-mapped, so a corpus may be larger than memory. `source` is the corpus's name, `left_out` and
    `notes` are what was found when it was opened.
    """

    source: str
    contents: Contents
    tokenizer: Tokenizer
    tokens: np.ndarray
    document_starts: np.ndarray
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def store_key(contents: Contents, tokenizer: Tokenizer) -> str:
    """Return the name of the store of that corpus and that tokenizer."""
    return checksum({"format": FORMAT, "contents": dataclasses.asdict(contents), "tokenizer": tokenizer.state()})[:32]


def checksum(description: Any) -> str:
    """Return the SHA-256 of something that JSON can hold."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def write_store(folder: Path, reading: Reading, tokenizer: Tokenizer | None, source: str) -> tuple[Contents, Tokenizer]:
    """Fill an empty folder with a store, forced to the disk; without a `tokenizer`, with one of new characters.

    Return what the corpus holds and the tokenizer. Raises OSError where there is no room.
    """
    with (folder / TOKENS).open("wb") as file:
        try_lock(file)  # until the folder has its name, this tells it from one that was abandoned
        tokenizer, starts = _write_tokens(reading, tokenizer, file, folder)
        length = file.tell()
        _force(file)
    with (folder / DOCUMENTS).open("wb") as file:
        file.write(starts)
        _force(file)
    contents = reading.contents()
    metadata = {
        "format": FORMAT,
        "source": source,
        "contents": dataclasses.asdict(contents),
        "tokenizer": tokenizer.state(),
        "dtype": token_type(tokenizer.size).str,
        "tokens": length // token_type(tokenizer.size).itemsize,
    }
    with (folder / METADATA).open("wb") as file:
        file.write(json.dumps({**metadata, "checksum": checksum(metadata)}, indent=1).encode())
        _force(file)
    return contents, tokenizer


def open_store(folder: Path, source: str) -> TokenStore | None:
    """Return the store in a folder, or None where there is none or not a whole one; `source` is its corpus's name now.

    As long as the tokens are in use, by whomever, `in_use` tells so.
    """
    try:
        found = read_json(folder / METADATA, dict[str, Any], most=LARGEST_METADATA)
        if found.pop("checksum", None) != checksum(found):
            return None
        metadata = checked(found, Metadata, source=METADATA)
        contents, tokenizer = metadata.contents, tokenizer_from_state(metadata.tokenizer)
        dtype = token_type(tokenizer.size)
        if (metadata.format, metadata.dtype) != (FORMAT, dtype.str) or store_key(contents, tokenizer) != folder.name:
            return None
        tokens = _mapped(folder / TOKENS, dtype, metadata.tokens)
        starts = _mapped(folder / DOCUMENTS, np.dtype(np.int64), contents.documents)
    except (OSError, ValueError, TinygradChatError):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / METADATA)  # the stores that were used last stay longest
    return TokenStore(source, contents, tokenizer, tokens, starts)


def temporary_store(reading: Reading, tokenizer: Tokenizer | None, source: str) -> TokenStore:
    """Return a store that goes with its arrays. Raises OSError where there is no room for it."""
    with tempfile.TemporaryFile() as file:
        tokenizer, starts = _write_tokens(reading, tokenizer, file, None)
        file.flush()
        dtype = token_type(tokenizer.size)
        count = file.tell() // dtype.itemsize
        tokens = np.memmap(file, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
    return TokenStore(source, reading.contents(), tokenizer, tokens, np.frombuffer(starts, np.int64))


def in_use(folder: Path) -> bool:
    """Return whether a process writes a store or has it open; one that cannot be looked at may be in use."""
    try:
        with open_plain(folder / TOKENS) as file:
            return not try_lock(file)
    except (FileNotFoundError, NotADirectoryError, UnfitFileError):
        return False
    except OSError:
        return True


def _write_tokens(
    reading: Reading, tokenizer: Tokenizer | None, file: BinaryIO, folder: Path | None
) -> tuple[Tokenizer, array]:
    if tokenizer is None:
        return write_characters(reading, file, folder=folder)
    return tokenizer, write_tokens(reading, tokenizer, file)


def _mapped(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    """Map a file that must hold `count` numbers, locked against removal for as long as the array is there."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size != count * dtype.itemsize:
            raise ValueError(f"{path}: expected {count} numbers")
        if count == 0:
            return np.empty(0, dtype)
        try_lock(file, shared=True)  # the map holds the file open, and so the lock
        return np.memmap(file, dtype, mode="r", shape=(count,))


def _force(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
