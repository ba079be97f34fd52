"""A tokenized corpus on disk: what a text takes long to become, once.

A store is a folder of three files, or four:

    tokens.bin      every document's tokens, each document after a BOS, in the smallest unsigned type that holds them:
                    first those to train on, then those that are held out
    documents.bin   the index in it at which each document begins, int64
    marks.bin       of conversations: which tokens are trained, a byte for each (conversations/windows.py)
    metadata.json   which corpus, split how, and which tokenizer, how many tokens, and a checksum of all that

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

FORMAT = 2  # to be raised when the same corpus and tokenizer would give other files
CONVERSATIONS = 1  # the same of conversations
TOKENS, DOCUMENTS, METADATA = "tokens.bin", "documents.bin", "metadata.json"
TRAINED_MARKS = "marks.bin"
LARGEST_METADATA = 32 << 20  # bytes


@dataclass(frozen=True)
class Metadata:
    """What metadata.json holds, beside the checksum of all of it."""

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

    Both arrays are memory-mapped, so a corpus may be larger than memory. The tokens from `held_out_from` on are not to
    be trained on: whole documents, or the end of all, as `split` says. Of conversations, `marks` (N,) say which tokens
    are trained; of text there are none, as all are. `source` is the corpus's name, `left_out` is what lies among its
    files and was not read, and `notes` tell people of that, and of questions that are left out.
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
    """The token stores of several sources, all by one tokenizer, and their `shares`, in all 1. `source` names them."""

    source: str
    stores: tuple[TokenStore, ...]
    shares: tuple[Fraction, ...]

    @property
    def tokenizer(self) -> Tokenizer:
        """What the tokens of all of them mean."""
        return self.stores[0].tokenizer


def store_key(contents: Contents, tokenizer: Tokenizer, split: str, *, conversations: bool) -> str:
    """Return the name of the store of that corpus and that tokenizer, split so."""
    named = {"contents": dataclasses.asdict(contents), "split": contents.split(split), "tokenizer": tokenizer.state()}
    if conversations:  # a text may hold the same bytes
        named["conversations"] = CONVERSATIONS
    return checksum({"format": FORMAT, **named})[:32]


def checksum(description: Any) -> str:
    """Return the SHA-256 of something that JSON can hold."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def write_store(folder: Path, reading: Reading, tokenizer: Tokenizer | None, source: str, split: str) -> str:
    """Fill an empty folder with a store, forced to the disk; without a `tokenizer`, with one of new characters.

    Return the name that it is to have. Raises OSError where there is no room.
    """
    with contextlib.ExitStack() as stack:
        names = (TOKENS, DOCUMENTS, *([TRAINED_MARKS] if reading.conversations else []))
        files = [stack.enter_context((folder / name).open("wb")) for name in names]
        tokens, starts, marks = *files[:2], (files[2] if reading.conversations else None)
        try_lock(tokens)  # until the folder has its name, this tells it from one that was abandoned
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
    """Return the store in a folder, or None where there is none or not a whole one; `source` is its corpus's name now.

    As long as the tokens are in use, by whomever, `in_use` tells so.
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
        os.utime(folder / METADATA)  # the stores that were used last stay longest
    split = metadata.split, metadata.held_out_from
    notes = _notes(source, metadata.unanswered)
    return TokenStore(source, contents, tokenizer, tokens, starts, *split, notes=notes, marks=marks)


def read_metadata(folder: Path) -> Metadata:
    """Return what a store says of itself. Raises OSError or FormatError where it is none, or no whole one."""
    found = read_json(folder / METADATA, dict[str, Any], most=LARGEST_METADATA)
    if found.pop("checksum", None) != checksum(found):
        raise FormatError(f"{folder / METADATA}: is not what was written")
    return checked(found, Metadata, source=METADATA)


def temporary_store(reading: Reading, tokenizer: Tokenizer | None, source: str, split: str = AUTO) -> TokenStore:
    """Return a store that goes with its arrays. Raises OSError where there is no room for it."""
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
    """Return whether a process writes a store or has it open; one that cannot be looked at may be in use."""
    try:
        with open_plain(folder / TOKENS) as file:
            return not try_lock(file)
    except (FileNotFoundError, NotADirectoryError, UnfitFileError):
        return False
    except OSError:
        return True


def _mapped(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    """Map a file that must hold `count` numbers, locked against removal for as long as the array is there."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size != count * dtype.itemsize:
            raise ValueError(f"{path}: expected {count} numbers")
        try_lock(file, shared=True)  # the map holds the file open, and so the lock
        return _map(file, dtype, count)


def _map(file: IO[bytes], dtype: np.dtype, count: int) -> np.ndarray:
    file.flush()
    return np.memmap(file, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)


def _force(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
