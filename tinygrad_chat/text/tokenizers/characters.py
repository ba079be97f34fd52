"""One token for each character of an alphabet.

>>> tokenizer = CharacterTokenizer("abc")
>>> tokenizer.encode("cab").tolist()
[2, 0, 1]
>>> tokenizer.decode([2, 0, 1])
'cab'
>>> tokenizer.special_tokens
{'<|bos|>': 3}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.errors import VocabularyError
from tinygrad_chat.text.tokenizers.tokenizer import BOS, PiecewiseTokenizer


class CharacterTokenizer(PiecewiseTokenizer):
    """One token for each character of an alphabet, in the order of their code points, and then BOS."""

    kind = "characters"

    def __init__(self, alphabet: Iterable[str]) -> None:
        self._characters = sorted(set(alphabet))
        self._code_points = np.array([ord(character) for character in self._characters], np.uint32)
        self.special_tokens: Mapping[str, int] = {BOS: len(self._characters)}
        self.size = len(self._characters) + 1

    def __contains__(self, character: str) -> bool:
        """Return whether there is a token for a character."""
        return character in self._characters

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of `text`. Raises VocabularyError, naming the first unknown character and its offset."""
        code_points = code_points_of(text)
        tokens = np.searchsorted(self._code_points, code_points)
        tokens[tokens == self.bos] = 0  # beyond the last character: caught by the comparison below
        unknown = self._code_points[tokens] != code_points if self.bos else np.ones(len(text), bool)
        if unknown.any():
            offset = int(unknown.argmax())
            raise VocabularyError(
                f"character {text[offset]!r} (U+{ord(text[offset]):04X}) at offset {offset} is not among the "
                f"{self.bos} characters that the model knows; remove it, or train with --tokenizer bytes"
            )
        return tokens.astype(np.min_scalar_type(self.size - 1))

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the character of each token; BOS yields nothing."""
        return (self._characters[token] for token in self.without_bos(tokens))

    def bytes_per_token(self) -> np.ndarray:
        """Return how many bytes of UTF-8 each token stands for, (V,) integers; 0 for BOS."""
        return np.array([len(character.encode()) for character in self._characters] + [0])

    def state(self) -> dict[str, Any]:
        """Return the kind and the alphabet."""
        return {"kind": self.kind, "alphabet": "".join(self._characters)}


def code_points_of(text: str) -> np.ndarray:
    """Return the code point of each character, uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
