"""One pass over the documents of a corpus: what is counted, what is hashed, and their tokens as they are written."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinygrad_chat.schema import Count
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.formats.encoding import PIECE
from tinygrad_chat.text.tokenizers import CharacterTokenizer, Tokenizer
from tinygrad_chat.text.tokenizers.characters import code_points_of

CHUNK = 1 << 20  # tokens that are translated at a time
BEYOND = sys.maxunicode + 1  # BOS among code points: after every character, as in the tokenizer that is made of them


@dataclass(frozen=True)
class Contents:
    """What a corpus holds. `sha256` and `bytes` are those of all documents one behind the other.

    `lengths` is the SHA-256 of every document's length, which tells apart what is the same text in other documents.
    """

    sha256: str
    bytes: Count
    documents: Count
    lengths: str


class Reading:
    """One pass over the documents of a corpus. Whoever iterates over it must come to the end of each document.

    `progress` is told of each MiB of a corpus that comes from files. Rows of JSON are longer than their text: with them
    it ends early.
    """

    def __init__(self, corpus: Corpus, *, any_bytes: bool, activity: str, progress: Progress | None = None) -> None:
        self._documents = corpus.documents(any_bytes=any_bytes)
        self._digest, self._lengths = hashlib.sha256(), hashlib.sha256()
        self._bytes = self._count = self._told = 0
        self._activity, self._progress, self._total = activity, progress, corpus.size()

    def __iter__(self) -> Iterator[Iterator[str]]:
        for document in self._documents:
            start = self._bytes
            yield self._pieces(document)
            self._count += 1
            self._lengths.update((self._bytes - start).to_bytes(8, "little"))

    def _pieces(self, document: Iterable[str]) -> Iterator[str]:
        for piece in document:
            raw = piece.encode("utf-8", "surrogateescape")
            self._digest.update(raw)
            self._bytes += len(raw)
            yield piece
            if self._progress is not None and self._told + PIECE <= self._bytes <= self._total:
                self._progress(self._activity, self._bytes, self._total)
                self._told = self._bytes

    def contents(self) -> Contents:
        """Return what the pass has found, once it is over."""
        return Contents(self._digest.hexdigest(), self._bytes, self._count, self._lengths.hexdigest())


def token_type(size: int) -> np.dtype:
    """Return the smallest unsigned type that holds the tokens of a vocabulary."""
    return np.dtype(np.min_scalar_type(size - 1))


def write_tokens(reading: Reading, tokenizer: Tokenizer, file: BinaryIO) -> array:
    """Write the tokens of each document, after a BOS, to `file`; return at which token each document begins."""
    return _write(reading, file, tokenizer.bos, token_type(tokenizer.size), tokenizer.encode_document)


def write_characters(reading: Reading, file: BinaryIO, *, folder: Path | None) -> tuple[CharacterTokenizer, array]:
    """Do so with the tokenizer of the characters that the documents turn out to hold, and return that too.

    Until all are known, their code points lie in a temporary file in `folder`.
    """
    with tempfile.TemporaryFile(dir=folder) as spool:
        starts = _write(reading, spool, BEYOND, np.dtype(np.uint32), lambda pieces: map(code_points_of, pieces))
        seen = np.zeros(BEYOND + 1, bool)
        for code_points in _chunks(spool):
            seen[code_points] = True
        tokenizer = CharacterTokenizer(map(chr, np.flatnonzero(seen)[:-1]))
        token_of = (np.cumsum(seen) - 1).astype(token_type(tokenizer.size))
        for code_points in _chunks(spool):
            file.write(token_of[code_points].data)
    return tokenizer, starts


def _write(
    reading: Reading,
    file: BinaryIO,
    bos: int,
    dtype: np.dtype,
    encode_document: Callable[[Iterable[str]], Iterator[np.ndarray]],
) -> array:
    starts, count = array("q"), 0
    first = np.array([bos], dtype).data
    for document in reading:
        starts.append(count)
        file.write(first)
        count += 1
        for tokens in encode_document(document):
            file.write(np.ascontiguousarray(tokens, dtype).data)
            count += len(tokens)
    return starts


def _chunks(file: BinaryIO) -> Iterator[np.ndarray]:
    file.seek(0)
    while content := file.read(CHUNK * 4):
        yield np.frombuffer(content, np.uint32)
