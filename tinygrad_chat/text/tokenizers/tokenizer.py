"""What a tokenizer is, and what ours share."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from tinygrad_chat.errors import VocabularyError

BOS = "<|bos|>"
"""The name of the special token with which each document begins."""


class Tokenizer(Protocol):
    """Text to tokens 0 ... size - 1 and back. Special tokens have names and stand for no text."""

    kind: str
    size: int
    special_tokens: Mapping[str, int]
    slow: bool
    """Whether it encodes so slowly that several processes are worth it, each with what `tokenizer_from_state` makes."""

    @property
    def bos(self) -> int:
        """The token with which each document begins: `special_tokens[BOS]`."""
        ...

    @property
    def ends(self) -> frozenset[int]:
        """The tokens with which a text ends: BOS, as the next begins with it, and others that say so."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a whole text, in the smallest unsigned type that holds them all; none is special."""
        ...

    def encode_document(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the tokens of a text that comes in pieces, cut anywhere: together those of the whole text."""
        ...

    def cut_document(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield such a text anew, cut only where no token ends up in two pieces: `encode` each, in any process."""
        ...

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of each token as soon as it is complete; special tokens yield nothing."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of all the tokens."""
        ...

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes that the tokens stand for, also where they are no UTF-8."""
        ...

    def bytes_per_token(self) -> np.ndarray:
        """Return how many bytes of UTF-8 each token stands for, (V,) integers; 0 for special ones."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what `tokenizer_from_state` makes this tokenizer from, ready for JSON."""
        ...


class PiecewiseTokenizer(ABC):
    """What follows from `encode` and from where a text may be cut: anywhere, unless `cut_document` knows better."""

    slow = False
    size: int
    special_tokens: Mapping[str, int]

    @property
    def bos(self) -> int:
        """The token with which each document begins."""
        return self.special_tokens[BOS]

    @property
    def ends(self) -> frozenset[int]:
        """The token with which a text ends, as the next begins with it."""
        return frozenset({self.bos})

    def without_bos(self, tokens: Iterable[int]) -> Iterator[int]:
        """Yield the tokens that stand for text. Raises VocabularyError for a number that is none of the tokens."""
        for token in tokens:
            if not 0 <= token < self.size:
                raise VocabularyError(f"decode: expected tokens from 0 to {self.size - 1}, received {token}")
            if token != self.bos:
                yield token

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a whole text."""

    @abstractmethod
    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of each token as soon as it is complete."""

    def encode_document(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the tokens of each piece that no token crosses."""
        return map(self.encode, self.cut_document(pieces))

    def cut_document(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces as they are."""
        return iter(pieces)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of all the tokens."""
        return "".join(self.decode_stream(tokens))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes that the tokens stand for."""
        return self.decode(tokens).encode("utf-8", "surrogateescape")


def characters_of(contents: Iterable[bytes]) -> Iterator[str]:
    """Yield UTF-8 that comes cut anywhere, each character once all its bytes are there; what is none becomes U+FFFD.

    >>> list(characters_of([b"a\\xc3", b"\\xa9", b"\\xff"]))
    ['a', 'é', '\ufffd']
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for content in contents:
        text = decoder.decode(content)
        if text:
            yield text
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest
