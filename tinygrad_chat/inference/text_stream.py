"""Tokens to text as they come: whole characters, and nothing of what may yet become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tinygrad_chat.text.tokenizers import Tokenizer


class TextStream:
    """Takes tokens one by one; gives the text of each once it is certain to be shown.

    The first of the `stops` to be complete ends the text before it: then `stopped` is true.
    """

    def __init__(self, tokenizer: Tokenizer | None, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take a token; return what text is certain now."""
        if self._tokenizer is None:
            return ""
        self._held += self._decoder.decode(self._tokenizer.decode_bytes([token]))
        found = [at for at in map(self._held.find, self._stops) if at >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
            return self.flush()
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return certain

    def flush(self) -> str:
        """Return what was held back, as nothing follows that it could be a part of; half a character is let go of."""
        held, self._held = self._held, ""
        self._half, _ = self._decoder.getstate()
        self._decoder.reset()
        return held

    @property
    def rest(self) -> str:
        """What the last `flush` let go of, in place of which `Tokenizer.decode` has U+FFFD."""
        return self._half.decode("utf-8", "replace")


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the stop string."""
    return next(size for size in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:size]))
