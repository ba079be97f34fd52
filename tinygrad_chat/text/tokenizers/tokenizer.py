"""The interface of a tokenizer, and the code that ours share."""

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
    """Whether encoding is slow enough to be worth several processes, each with a copy by `tokenizer_from_state`."""

    @property
    def bos(self) -> int:
        """The token with which each document begins: `special_tokens[BOS]`."""
        ...

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end a text: BOS, as it begins the next one, and others that mark an end."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a whole text, none special, in the smallest unsigned type that holds the vocabulary."""
        ...

    def encode_document(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the tokens of a text that comes in pieces cut anywhere: the same as those of the whole text."""
        ...

    def cut_document(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the same text cut only where no token spans two pieces: each can be encoded in any process."""
        ...

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of each token as soon as it is complete; special tokens yield nothing."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of all the tokens."""
        ...

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes that the tokens stand for, even if they are not valid UTF-8."""
        ...

    def bytes_per_token(self) -> np.ndarray:
        """Return how many bytes of UTF-8 each token stands for, (V,) integers; 0 for special ones."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the state from which `tokenizer_from_state` rebuilds this tokenizer, ready for JSON."""
        ...


class PiecewiseTokenizer(ABC):
    """Derives the rest from `encode` and `decode_stream`; text may be cut anywhere, unless `cut_document` differs."""

    slow = False
    size: int
    special_tokens: Mapping[str, int]

    @property
    def bos(self) -> int:
        """The token with which each document begins."""
        return self.special_tokens[BOS]

    @property
    def stop_tokens(self) -> frozenset[int]:
        """BOS alone, which ends a text as it begins the next one."""
        return frozenset({self.bos})

    def without_bos(self, tokens: Iterable[int]) -> Iterator[int]:
        """Yield the tokens that stand for text. Raises VocabularyError for a number outside the vocabulary."""
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
        """Yield the tokens of each piece, cut where no token spans two."""
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
    """Decode UTF-8 that comes cut anywhere, each character once its bytes are complete; invalid bytes become U+FFFD.

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
