"""One pass over the documents of a corpus: what is counted, what is hashed, and their tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tinygrad_chat.schema import Count
from tinygrad_chat.text.conversations.document import ChatDocument
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.formats.encoding import PIECE
from tinygrad_chat.text.formats.rows import Document
from tinygrad_chat.text.split import LEAST_DOCUMENTS, choose_split, is_held_out


@dataclass(frozen=True)
class Contents:
    """What a corpus holds. `sha256` and `bytes` are those of all documents one behind the other.

    `lengths` is the SHA-256 of every document's length, which tells apart what is the same text in other documents.
    `different` says how many documents are not the same, up to as many as a split by documents takes; `held_out` are
    the bytes of those that their hash holds out.
    """

    sha256: str
    bytes: Count
    documents: Count
    lengths: str
    different: Count
    held_out: Count

    def split(self, chosen: str) -> str:
        """Return how the corpus is split, as `choose_split` has it."""
        return choose_split(chosen, documents=self.different, bytes=self.bytes, held_out=self.held_out)


class Reading:
    """One pass over the documents of a corpus. Whoever iterates over it must come to the end of each document.

    `size` is that of the corpus's files in bytes. `held_out` says of each document so far, by a byte that is 0 or 1,
    whether its hash holds it out; `document` is the last of them, whole; `unanswered` counts the conversations that end
    with a question, which is left out. `progress` is told of each MiB of a corpus that comes from files. Rows of JSON
    are longer than their text: with them it ends early.
    """

    def __init__(self, corpus: Corpus, *, any_bytes: bool, activity: str, progress: Progress | None = None) -> None:
        self._documents = corpus.documents(any_bytes=any_bytes)
        self.conversations = corpus.conversations
        self.document: Document = ()
        self._digest, self._lengths = hashlib.sha256(), hashlib.sha256()
        self._document = hashlib.sha256()
        self._bytes = self._held_out_bytes = self._told = 0
        self._activity, self._progress = activity, progress
        self.size = corpus.size()
        self._different: set[bytes] = set()
        self.held_out = bytearray()
        self.unanswered = 0

    def __iter__(self) -> Iterator[Iterator[str]]:
        for document in self._documents:
            start, self._document = self._bytes, hashlib.sha256()
            self.document = document
            yield self._pieces(document)
            length, digest = self._bytes - start, self._document.digest()
            held_out = is_held_out(digest)
            self._lengths.update(length.to_bytes(8, "little"))
            self._held_out_bytes += held_out * length
            self.held_out.append(held_out)
            self.unanswered += isinstance(document, ChatDocument) and document.unanswered is not None
            if len(self._different) < LEAST_DOCUMENTS:
                self._different.add(digest)

    def _pieces(self, document: Iterable[str]) -> Iterator[str]:
        for piece in document:
            raw = piece.encode("utf-8", "surrogateescape")
            self._digest.update(raw)
            self._document.update(raw)
            self._bytes += len(raw)
            yield piece
            if self._progress is not None and self._told + PIECE <= self._bytes <= self.size:
                self._progress(self._activity, self._bytes, self.size)
                self._told = self._bytes

    def contents(self) -> Contents:
        """Return what the pass has found, once it is over."""
        return Contents(
            self._digest.hexdigest(),
            self._bytes,
            len(self.held_out),
            self._lengths.hexdigest(),
            len(self._different),
            self._held_out_bytes,
        )
