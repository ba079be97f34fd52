"""A tokenized corpus on disk, so that the slow work is done once.

A store is a folder of three files, or four:

    tokens.bin      every document's tokens, each document after a BOS, in the smallest unsigned type that holds them:
                    first those to train on, then those that are held out
    documents.bin   the index in it at which each document begins, int64
    marks.bin       for conversations: which tokens are trained, a byte for each (conversations/windows.py)
    metadata.json   the corpus, its split, the tokenizer, the number of tokens, and a checksum of all that

The folder gets its name only once it is complete and on disk, so no process sees a partial one. Opening it checks that
the metadata match their checksum and the folder's name, and that the files have the recorded lengths: this detects
truncated or mixed-up files and edited metadata. The contents of the files are not verified: that would take as long as
reading the text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from tinygrad_chat.errors import FormatError, TinygradChatError
from tinygrad_chat.files import UnfitFileError, open_plain, try_lock
from tinygrad_chat.formatting import count
from tinygrad_chat.schema import OPTIONAL, Count, checked, read_json
from tinygrad_chat.text.finding import LeftOut
from tinygrad_chat.text.reading import Contents, Reading
from tinygrad_chat.text.split import AUTO
from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state
from tinygrad_chat.text.writing import token_type, write_tokens

FORMAT = 2  # bump when the same corpus and tokenizer would give different files
CONVERSATIONS = 1  # the same for conversations
TOKENS, DOCUMENTS, METADATA = "tokens.bin", "documents.bin", "metadata.json"
TRAINED_MARKS = "marks.bin"
LARGEST_METADATA = 32 << 20  # bytes


@dataclass(frozen=True)
class Metadata:
    """What metadata.json holds, besides the checksum of all of it."""

    format: int
    source: str
    contents: Contents
    tokenizer: dict[str, Any]
    dtype: str
    vocabulary: Count
    tokens: Count
    split: str
    held_out_from: Count
    conversations: bool = field(default=False, metadata=OPTIONAL)
    unanswered: Count = field(default=0, metadata=OPTIONAL)


@dataclass(frozen=True)
class TokenStore:
    """A corpus as tokens (N,), each document after a BOS, with the index of each BOS: `document_starts` (documents,).

    Both arrays are memory-mapped, so a corpus may be larger than memory. The tokens from `held_out_from` on are held
    out: whole documents, or the end of the text, as `split` says. For conversations, `marks` (N,) say which tokens are
    trained; for text there are none, as all are. `source` is the corpus's name, `left_out` lists what was found among
    its files but not read, and `notes` tell the user about that, and about questions that are left out.
    """

    source: str
    contents: Contents
    tokenizer: Tokenizer
    tokens: np.ndarray
    document_starts: np.ndarray
    split: str
    held_out_from: int
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    marks: np.ndarray | None = None


@dataclass(frozen=True)
class MixedStore:
    """Token stores of several sources, all with one tokenizer, and `shares`, which sum to 1. `source` names them."""

    source: str
    stores: tuple[TokenStore, ...]
    shares: tuple[Fraction, ...]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all of them."""
        return self.stores[0].tokenizer


def store_key(contents: Contents, tokenizer: Tokenizer, split: str, *, conversations: bool) -> str:
    """Return the name of the store for these contents, this tokenizer and this split."""
    named = {"contents": dataclasses.asdict(contents), "split": contents.split(split), "tokenizer": tokenizer.state()}
    if conversations:  # a text corpus may hold the same bytes
        named["conversations"] = CONVERSATIONS
    return checksum({"format": FORMAT, **named})[:32]


def checksum(description: Any) -> str:
    """Return the SHA-256 of something that JSON can hold."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def write_store(folder: Path, reading: Reading, tokenizer: Tokenizer | None, source: str, split: str) -> str:
    """Write a store into an empty folder, synced to disk; without a `tokenizer`, with one of the corpus's characters.

    Return the name that the folder should get. Raises OSError if there is no room.
    """
    with contextlib.ExitStack() as stack:
        names = (TOKENS, DOCUMENTS, *([TRAINED_MARKS] if reading.conversations else []))
        files = [stack.enter_context((folder / name).open("wb")) for name in names]
        tokens, starts, marks = *files[:2], (files[2] if reading.conversations else None)
        try_lock(tokens)  # until the folder has its name, the lock tells it from an abandoned one
        written = write_tokens(reading, tokenizer, split, tokens=tokens, starts=starts, marks=marks, folder=folder)
        for file in files:
            _force(file)
    contents = reading.contents()
    metadata = {
        "format": FORMAT,
        "source": source,
        "contents": dataclasses.asdict(contents),
        "tokenizer": written.tokenizer.state(),
        "dtype": token_type(written.tokenizer.size).str,
        "vocabulary": written.tokenizer.size,
        "tokens": written.tokens,
        "split": written.split,
        "held_out_from": written.held_out_from,
        **({"conversations": True, "unanswered": reading.unanswered} if reading.conversations else {}),
    }
    with (folder / METADATA).open("wb") as file:
        file.write(json.dumps({**metadata, "checksum": checksum(metadata)}, indent=1).encode())
        _force(file)
    return store_key(contents, written.tokenizer, written.split, conversations=reading.conversations)


def open_store(folder: Path, source: str) -> TokenStore | None:
    """Return the store in a folder, or None if there is no complete one; `source` is its corpus's current name.

    As long as any process uses the tokens, `in_use` is true.
    """
    try:
        metadata = read_metadata(folder)
        contents, tokenizer = metadata.contents, tokenizer_from_state(metadata.tokenizer)
        dtype = token_type(tokenizer.size)
        fits = (metadata.format, metadata.dtype) == (FORMAT, dtype.str)
        key = store_key(contents, tokenizer, metadata.split, conversations=metadata.conversations)
        if not fits or key != folder.name:
            return None
        tokens = _mapped(folder / TOKENS, dtype, metadata.tokens)
        starts = _mapped(folder / DOCUMENTS, np.dtype(np.int64), contents.documents)
        marks = None
        if metadata.conversations:
            marks = _mapped(folder / TRAINED_MARKS, np.dtype(np.uint8), metadata.tokens)
    except (OSError, ValueError, TinygradChatError):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / METADATA)  # the most recently used stores stay longest
    split = metadata.split, metadata.held_out_from
    notes = _notes(source, metadata.unanswered)
    return TokenStore(source, contents, tokenizer, tokens, starts, *split, notes=notes, marks=marks)


def read_metadata(folder: Path) -> Metadata:
    """Return a store's metadata. Raises OSError or FormatError if there is no complete store."""
    found = read_json(folder / METADATA, dict[str, Any], most=LARGEST_METADATA)
    if found.pop("checksum", None) != checksum(found):
        raise FormatError(f"{folder / METADATA}: has changed since it was written")
    return checked(found, Metadata, source=METADATA)


def temporary_store(reading: Reading, tokenizer: Tokenizer | None, source: str, split: str = AUTO) -> TokenStore:
    """Return a store that disappears with its arrays. Raises OSError if there is no room for it."""
    with tempfile.TemporaryFile() as tokens, tempfile.TemporaryFile() as starts, tempfile.TemporaryFile() as noted:
        marks = noted if reading.conversations else None
        written = write_tokens(reading, tokenizer, split, tokens=tokens, starts=starts, marks=marks, folder=None)
        made, contents = written.tokenizer, reading.contents()
        arrays = (
            _map(tokens, token_type(made.size), written.tokens),
            _map(starts, np.dtype(np.int64), contents.documents),
        )
        mapped = _map(noted, np.dtype(np.uint8), written.tokens) if reading.conversations else None
    split_at, notes = (written.split, written.held_out_from), _notes(source, reading.unanswered)
    return TokenStore(source, contents, made, *arrays, *split_at, notes=notes, marks=mapped)


def _notes(source: str, unanswered: int) -> tuple[str, ...]:
    return (f"{source}: left out {count(unanswered, 'question')} that nobody has answered",) if unanswered else ()


def in_use(folder: Path) -> bool:
    """Return whether a process is writing a store or has it open; true if that cannot be determined."""
    try:
        with open_plain(folder / TOKENS) as file:
            return not try_lock(file)
    except (FileNotFoundError, NotADirectoryError, UnfitFileError):
        return False
    except OSError:
        return True


def _mapped(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    """Map a file that must hold `count` numbers, locked against removal for as long as the array exists."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size != count * dtype.itemsize:
            raise ValueError(f"{path}: expected {count} numbers")
        try_lock(file, shared=True)  # the map keeps the file open, and with it the lock
        return _map(file, dtype, count)


def _map(file: IO[bytes], dtype: np.dtype, count: int) -> np.ndarray:
    file.flush()
    return np.memmap(file, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)


def _force(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
