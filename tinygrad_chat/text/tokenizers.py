"""Tokenizers: text to integers and back. Each has one token more than its alphabet, BOS, where a document begins.

>>> tokenizer = CharacterTokenizer("abc")
>>> tokenizer.encode("cab").tolist()
[2, 0, 1]
>>> tokenizer.decode([2, 0, 1])
'cab'
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from tinygrad_chat.errors import CheckpointError, VocabularyError

LARGEST_SIZE = 1 << 24  # more tokens than any vocabulary has


class Tokenizer(Protocol):
    """Text to tokens 0 ... size - 1 and back. `bos` marks the beginning of a document and stands for no text."""

    kind: str
    size: int
    bos: int

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of `text`, in the smallest unsigned type that holds them all."""
        ...

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of each token as soon as it is complete; BOS yields nothing."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of all the tokens."""
        ...

    def bytes_per_token(self) -> np.ndarray:
        """Return how many bytes of UTF-8 each token stands for, (V,) integers."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes this tokenizer from, ready for JSON."""
        ...


class CharacterTokenizer:
    """One token for each character of an alphabet, in the order of their code points."""

    kind = "characters"

    def __init__(self, alphabet: Iterable[str]) -> None:
        self._characters = sorted(set(alphabet))
        self._code_points = np.array([ord(character) for character in self._characters], np.uint32)
        self.bos = len(self._characters)
        self.size = self.bos + 1

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of `text`. Raises VocabularyError, naming the first unknown character and its offset."""
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        tokens = np.searchsorted(self._code_points, code_points)
        tokens[tokens == self.bos] = 0  # beyond the last character: the comparison below tells
        unknown = self._code_points[tokens] != code_points if self.bos else np.ones(len(text), bool)
        if unknown.any():
            offset = int(unknown.argmax())
            raise VocabularyError(
                f"character {text[offset]!r} (U+{ord(text[offset]):04X}) at offset {offset} is not among the "
                f"{self.bos} characters that the model knows; leave it out, or train with --tokenizer bytes"
            )
        return tokens.astype(np.min_scalar_type(self.size - 1))

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the character of each token; BOS yields nothing."""
        return (self._characters[token] for token in tokens if token != self.bos)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of all the tokens."""
        return "".join(self.decode_stream(tokens))

    def bytes_per_token(self) -> np.ndarray:
        """Return how many bytes of UTF-8 each token stands for, (V,) integers; 0 for BOS."""
        return np.array([len(character.encode()) for character in self._characters] + [0])

    def state(self) -> dict[str, Any]:
        """Return the kind and the alphabet."""
        return {"kind": self.kind, "alphabet": "".join(self._characters)}


class ByteTokenizer:
    """One token for each of the 256 bytes of UTF-8: any text has tokens, and so has any file."""

    kind = "bytes"
    bos = 256
    size = 257

    def encode(self, text: str) -> np.ndarray:
        """Return the bytes of `text` as tokens; bytes that were no UTF-8 arrive as Python's surrogate escapes."""
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).astype(np.uint16)

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield each character once all its bytes are there; what is no UTF-8 becomes U+FFFD."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            if token != self.bos:
                text = decoder.decode(bytes([token]))
                if text:
                    yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of all the tokens."""
        return "".join(self.decode_stream(tokens))

    def bytes_per_token(self) -> np.ndarray:
        """Return 1 for each byte and 0 for BOS, (V,) integers."""
        return np.array([1] * 256 + [0])

    def state(self) -> dict[str, Any]:
        """Return the kind."""
        return {"kind": self.kind}


class NumberTokenizer:
    """Tokens as the numbers they are, for a model whose own tokenizer is not there: text is "17 4 99"."""

    kind = "numbers"

    def __init__(self, size: int, bos: int) -> None:
        self.size = size
        self.bos = bos

    def encode(self, text: str) -> np.ndarray:
        """Return the numbers in `text`. Raises VocabularyError for anything else in it."""
        for word in text.split():
            digits = word.lstrip("0") or "0"
            known = word.isascii() and word.isdecimal() and len(digits) <= len(str(self.size))
            if not (known and int(digits) < self.size):
                raise VocabularyError(
                    f"{word[:40]!r}: expected numbers from 0 to {self.size - 1}, as which the model was imported; "
                    "for text, import it with --tokenizer-of a run that has its vocabulary"
                )
        return np.array([int(word.lstrip("0") or 0) for word in text.split()], np.min_scalar_type(self.size - 1))

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield each token's number behind a space; BOS yields nothing."""
        return (f" {token}" for token in tokens if token != self.bos)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the numbers of all the tokens."""
        return "".join(self.decode_stream(tokens))

    def bytes_per_token(self) -> np.ndarray:
        """Return 1 for each token and 0 for BOS, (V,) integers: what they stand for is not known."""
        return (np.arange(self.size) != self.bos).astype(np.int64)

    def state(self) -> dict[str, Any]:
        """Return the kind and the numbers."""
        return {"kind": self.kind, "size": self.size, "bos": self.bos}


def load_tokenizer(state: Mapping[str, Any]) -> Tokenizer:
    """Make the tokenizer that `state` describes. Raises CheckpointError for a description that makes none."""
    if state.get("kind") == CharacterTokenizer.kind and isinstance(state.get("alphabet"), str):
        return CharacterTokenizer(state["alphabet"])
    if state.get("kind") == ByteTokenizer.kind:
        return ByteTokenizer()
    if state.get("kind") == NumberTokenizer.kind:
        size, bos = state.get("size"), state.get("bos")
        if isinstance(size, int) and isinstance(bos, int) and 0 <= bos < size <= LARGEST_SIZE:
            return NumberTokenizer(size, bos)
    raise CheckpointError(
        f"tokenizer: expected a description of characters, bytes or numbers, received {dict(state)!r:.80}"
    )
