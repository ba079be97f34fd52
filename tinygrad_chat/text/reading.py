"""One pass over the documents of a corpus, which are counted and hashed on the way."""

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
from tinygrad_chat.text.split import MIN_DOCUMENTS, choose_split, is_held_out


@dataclass(frozen=True)
class Contents:
    """What a corpus holds. `sha256` and `bytes` are those of all documents concatenated.

    `lengths` is the SHA-256 of the documents' lengths: it tells apart the same text cut into other documents.
    `different` counts distinct documents, up to MIN_DOCUMENTS; `held_out` counts the bytes of those that their hash
    holds out.
    """

    sha256: str
    bytes: Count
    documents: Count
    lengths: str
    different: Count
    held_out: Count

    def split(self, chosen: str) -> str:
        """Return how the corpus is split; see `choose_split`."""
        return choose_split(chosen, documents=self.different, bytes=self.bytes, held_out=self.held_out)


class Reading:
    """One pass over the documents of a corpus. Each document must be consumed to its end before the next one.

    `size` is that of the corpus's files in bytes. `held_out` has a byte for each document so far: 1 if its hash holds
    it out, otherwise 0. `document` is the current one, whole; `unanswered` counts the conversations that end with a
    question, which is left out. `progress` is called for each MiB of a corpus from files. JSON rows are longer than
    their text, so it ends below `size` for them.
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
            if len(self._different) < MIN_DOCUMENTS:
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
        """Return what the pass found, once it is over."""
        return Contents(
            self._digest.hexdigest(),
            self._bytes,
            len(self.held_out),
            self._lengths.hexdigest(),
            len(self._different),
            self._held_out_bytes,
        )
