"""Writes the tokens of all documents to disk: encoded in the order of the corpus, stored in the order of the split.

They are spooled to a temporary file first. Once all documents are read, the split is known, and so is the alphabet if
it had to be found; then each document is copied to its place. Only a few numbers per document are held in memory.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinygrad_chat.text.conversations.document import ChatDocument
from tinygrad_chat.text.conversations.template import ChatTemplate
from tinygrad_chat.text.conversations.windows import OF_SYSTEM, TRAINED
from tinygrad_chat.text.encoding_processes import encode_in_processes, how_many_processes
from tinygrad_chat.text.reading import Reading
from tinygrad_chat.text.split import DOCUMENTS, documents_before_end, end_from
from tinygrad_chat.text.tokenizers import CharacterTokenizer, Tokenizer
from tinygrad_chat.text.tokenizers.characters import code_points_of

MARKS = 2  # low bits for the marks of a conversation's token in the spool
CHUNK = 1 << 20  # tokens, or documents, in memory at a time
BEYOND = sys.maxunicode + 1  # BOS among code points: after every character, as in the tokenizer made from them

Encoded = Generator[np.ndarray | None]
"""The tokens of one document after another, in pieces; None marks the beginning of each."""


@dataclass(frozen=True)
class Written:
    """What was written: the tokenizer, the split, how many `tokens`, and the index from which they are held out."""

    tokenizer: Tokenizer
    split: str
    tokens: int
    held_out_from: int


def token_type(size: int) -> np.dtype:
    """Return the smallest unsigned type that holds the tokens of a vocabulary."""
    return np.dtype(np.min_scalar_type(size - 1))


def write_tokens(
    reading: Reading,
    tokenizer: Tokenizer | None,
    split: str,
    *,
    tokens: BinaryIO,
    starts: BinaryIO,
    marks: BinaryIO | None = None,
    folder: Path | None,
) -> Written:
    """Write each document's tokens after a BOS, its start (int64) and, for conversations, a byte of `marks` per token.

    Without a `tokenizer`, make one of the characters that the documents turn out to hold. The spool is a temporary file
    in `folder`.
    """
    with tempfile.TemporaryFile(dir=folder) as spool:
        if tokenizer is None:
            dtype, bos = np.dtype(np.uint32), BEYOND
            lengths = _spool(_encode_in_turn(reading, lambda pieces: map(code_points_of, pieces)), spool, bos, dtype)
            tokenizer, translation = _characters(spool)
        elif reading.conversations:
            dtype, translation = np.dtype(np.uint32), None
            template = ChatTemplate(tokenizer)
            lengths = _spool(_marked(reading, template), spool, template.beginning << MARKS, dtype)
        else:
            dtype, translation = token_type(tokenizer.size), None
            lengths = _spool(_encode(reading, tokenizer), spool, tokenizer.bos, dtype)
        split = reading.contents().split(split)
        held_out = np.frombuffer(reading.held_out, bool)
        count = 0
        for places, sizes in _laid_out(lengths, held_out, split):
            for part in _read(spool, places, sizes, dtype):
                if marks is not None:
                    marks.write((part & ((1 << MARKS) - 1)).astype(np.uint8).data)
                    part = (part >> MARKS).astype(token_type(tokenizer.size))
                tokens.write((part if translation is None else translation[part]).data)
            starts.write((count + np.cumsum(sizes) - sizes).data)
            count += int(sizes.sum())
        kept = int(lengths.sum(where=~held_out)) if split == DOCUMENTS else end_from(count)
        if split != DOCUMENTS and reading.conversations and len(lengths) > 1:  # between conversations, not within one
            kept = int(lengths[: documents_before_end(lengths.tolist())].sum())
    return Written(tokenizer, split, count, kept)


def _encode(reading: Reading, tokenizer: Tokenizer) -> Encoded:
    processes = how_many_processes(tokenizer, reading.size)
    if processes > 1:
        return encode_in_processes(reading, tokenizer, processes)
    return _encode_in_turn(reading, tokenizer.encode_document)


def _marked(reading: Reading, template: ChatTemplate) -> Encoded:
    """Yield the tokens of conversations, each with its marks in the low bits, and None where a conversation begins."""
    for pieces in reading:
        yield None
        for _ in pieces:
            pass
        assert isinstance(reading.document, ChatDocument)
        conversation = reading.document.conversation
        tokens, trained = template.render(conversation)
        marks = trained * TRAINED
        marks[: template.count_system_tokens(conversation)] += OF_SYSTEM
        yield ((tokens << MARKS) + marks)[1:]  # without the first, which `_spool` writes


def _encode_in_turn(
    documents: Iterable[Iterable[str]], encode: Callable[[Iterable[str]], Iterator[np.ndarray]]
) -> Encoded:
    for document in documents:
        yield None
        yield from encode(document)


def _spool(encoded: Encoded, spool: BinaryIO, bos: int, dtype: np.dtype) -> np.ndarray:
    """Write all tokens one after the other; return how many each document has, with its BOS."""
    lengths, first = array("q"), np.array([bos], dtype)
    with contextlib.closing(encoded):
        for tokens in encoded:
            if tokens is None:
                lengths.append(1)
                spool.write(first.data)
            else:
                lengths[-1] += len(tokens)
                spool.write(np.ascontiguousarray(tokens, dtype).data)
    return np.frombuffer(lengths, np.int64)


def _characters(spool: BinaryIO) -> tuple[CharacterTokenizer, np.ndarray]:
    """Return the tokenizer of all code points in a file, and the token of each code point."""
    seen = np.zeros(BEYOND + 1, bool)
    size = np.array([spool.tell() // 4])
    for code_points in _read(spool, np.array([0]), size, np.dtype(np.uint32)):
        seen[code_points] = True
    tokenizer = CharacterTokenizer(map(chr, np.flatnonzero(seen[:BEYOND])))
    return tokenizer, (np.cumsum(seen) - 1).astype(token_type(tokenizer.size))


def _laid_out(lengths: np.ndarray, held_out: np.ndarray, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield where documents are in the spool and their lengths, in the order of the store."""
    for side in (False, True) if split == DOCUMENTS else (None,):
        start = 0
        for first in range(0, len(lengths), CHUNK):
            sizes = lengths[first : first + CHUNK]
            places = start + np.cumsum(sizes) - sizes
            start += int(sizes.sum())
            chosen = slice(None) if side is None else held_out[first : first + CHUNK] == side
            if sizes[chosen].size:
                yield places[chosen], sizes[chosen]


def _read(file: BinaryIO, places: np.ndarray, sizes: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the numbers in these ranges of a file, at most CHUNK at a time; adjacent ranges are read as one."""
    ends = places + sizes
    apart = np.flatnonzero(places[1:] != ends[:-1])
    starts, stops = places[np.append(0, apart + 1)], ends[np.append(apart, -1)]
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        file.seek(start * dtype.itemsize)
        for at in range(start, stop, CHUNK):
            yield np.frombuffer(file.read(min(CHUNK, stop - at) * dtype.itemsize), dtype)
