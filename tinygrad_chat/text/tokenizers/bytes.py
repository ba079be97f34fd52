"""One token for each byte of UTF-8.

>>> ByteTokenizer().encode("é").tolist()
[195, 169]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.text.tokenizers.tokenizer import BOS, PiecewiseTokenizer, characters_of


class ByteTokenizer(PiecewiseTokenizer):
    """One token for each of the 256 bytes, and then BOS: any text can be encoded, and so can any file."""

    kind = "bytes"
    special_tokens: Mapping[str, int] = {BOS: 256}
    size = 257

    def encode(self, text: str) -> np.ndarray:
        """Return the UTF-8 bytes of `text` as tokens; surrogate escapes become the bytes that they stand for."""
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).astype(np.uint16)

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield each character once all its bytes are there; invalid UTF-8 becomes U+FFFD."""
        return characters_of(bytes([token]) for token in self.without_bos(tokens))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes themselves."""
        return bytes(self.without_bos(tokens))

    def bytes_per_token(self) -> np.ndarray:
        """Return 1 for each byte and 0 for BOS, (V,) integers."""
        return np.array([1] * 256 + [0])

    def state(self) -> dict[str, Any]:
        """Return the kind."""
        return {"kind": self.kind}
