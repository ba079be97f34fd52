"""A corpus as tokens, split into a part to train on and one to evaluate on."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass

import numpy as np

from tinygrad_chat.errors import DataError, StorageError
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer

HELD_OUT = 10  # one token of this many is kept for validation


@dataclass(frozen=True)
class Dataset:
    """`training` and `validation` tokens, and what they were made from.

    The tokens lie in a memory-mapped temporary file, so a corpus may be larger than memory. `sha256` and `bytes` are
    those of all documents one behind the other: for a single text file, the file's own.
    """

    source: str
    sha256: str
    bytes: int
    documents: int
    training: np.ndarray
    validation: np.ndarray

    def summary(self) -> dict[str, str | int]:
        """Return what a run records of its data, ready for JSON."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "documents": self.documents,
            "training_tokens": len(self.training),
            "validation_tokens": len(self.validation),
        }


def build_tokenizer(kind: str, corpus: Corpus) -> Tokenizer:
    """Return a new tokenizer of the kind "characters" or "bytes"; the first reads the corpus for its alphabet."""
    if kind == ByteTokenizer.kind:
        return ByteTokenizer()
    alphabet: set[str] = set()
    for document in corpus.documents():
        for piece in document:
            alphabet.update(piece)
    return CharacterTokenizer(alphabet)


def load_dataset(corpus: Corpus, tokenizer: Tokenizer, *, context: int) -> Dataset:
    """Tokenize a corpus, each document after a BOS, and split it by position: the first 90 % are for training.

    Raises DataError where either part is too short for one window of `context` tokens and its targets.
    """
    digest, size, documents, count = hashlib.sha256(), 0, 0, 0
    any_bytes = isinstance(tokenizer, ByteTokenizer)
    dtype = np.min_scalar_type(tokenizer.size - 1)
    bos = np.array([tokenizer.bos], dtype).tobytes()
    try:
        with tempfile.TemporaryFile() as file:
            for document in corpus.documents(any_bytes=any_bytes):
                file.write(bos)
                documents, count = documents + 1, count + 1
                for piece in document:
                    raw = piece.encode("utf-8", "surrogateescape")
                    digest.update(raw)
                    size += len(raw)
                    tokens = tokenizer.encode(piece)
                    file.write(tokens.astype(dtype, copy=False).tobytes())
                    count += len(tokens)
            file.flush()
            tokens = np.memmap(file, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
    except OSError as error:
        raise StorageError(
            f"--data {corpus.name}: no room for its tokens in {tempfile.gettempdir()} ({error.strerror}); "
            "free some space, or name another folder in the variable TMPDIR"
        ) from error
    split = count - count // HELD_OUT
    least = (context + 1) * HELD_OUT
    if size == 0:
        raise DataError(f"--data {corpus.name}: is empty; expected at least {least} characters of text")
    if count < least:
        raise DataError(
            f"--data {corpus.name}: expected at least {least} tokens for --context {context} (one window in each of "
            f"training and validation), received {count}; use a longer text or a smaller --context"
        )
    return Dataset(corpus.name, digest.hexdigest(), size, documents, tokens[:split], tokens[split:])
