"""Tokens as numbers, for imported models.

>>> NumberTokenizer(300, bos=291).encode("17 4 99").tolist()
[17, 4, 99]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.errors import VocabularyError
from tinygrad_chat.option import expect
from tinygrad_chat.text.tokenizers.tokenizer import BOS, PiecewiseTokenizer


class NumberTokenizer(PiecewiseTokenizer):
    """Tokens written as numbers, for a model whose own tokenizer is missing: a text is "17 4 99"."""

    kind = "numbers"

    def __init__(self, size: int, bos: int) -> None:
        expect("NumberTokenizer: bos", bos, minimum=0, below=size)
        self.size = size
        self.special_tokens: Mapping[str, int] = {BOS: bos}

    def encode(self, text: str) -> np.ndarray:
        """Return the numbers in `text`. Raises VocabularyError for anything else in it."""
        for word in text.split():
            digits = word.lstrip("0") or "0"
            known = word.isascii() and word.isdecimal() and len(digits) <= len(str(self.size))
            if not (known and int(digits) < self.size):
                raise VocabularyError(
                    f"{word[:40]!r}: expected numbers from 0 to {self.size - 1}, since the model was imported "
                    "without a tokenizer; for text, import it with --tokenizer-of a run that has its vocabulary"
                )
        return np.array([int(word.lstrip("0") or 0) for word in text.split()], np.min_scalar_type(self.size - 1))

    def cut_document(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield whole words; the last of each piece is held back, as the next piece may continue it."""
        rest = ""
        for piece in pieces:
            text = rest + piece
            rest = "" if not text or text[-1].isspace() else text.split()[-1]
            yield text[: len(text) - len(rest)]
        yield rest

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield each token's number after a space; BOS yields nothing."""
        return (f" {token}" for token in self.without_bos(tokens))

    def bytes_per_token(self) -> np.ndarray:
        """Return 1 for each token and 0 for BOS, (V,) integers: the bytes they stand for are unknown."""
        return (np.arange(self.size) != self.bos).astype(np.int64)

    def state(self) -> dict[str, Any]:
        """Return the kind, the size and the number of BOS."""
        return {"kind": self.kind, "size": self.size, "bos": self.bos}
