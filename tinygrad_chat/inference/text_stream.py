"""Streaming detokenization: whole characters only, and nothing that may yet become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tinygrad_chat.text.tokenizers import Tokenizer


class TextStream:
    """Takes tokens one at a time; returns text as soon as it is certain to be shown.

    The first of the `stops` to be complete ends the text before it: then `stopped` is true. A special token separates
    texts: no character and no stop string spans one.
    """

    def __init__(self, tokenizer: Tokenizer | None, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held, self._half = "", b""
        self.stopped = False

    def push(self, token: int, *, may_stop: bool = True) -> str:
        """Take a token; return the text that is certain now. With `may_stop=False` no stop string is looked for."""
        content = self._tokenizer.decode_bytes([token]) if self._tokenizer else b""
        if not content:
            return self.flush()
        self._held += self._decoder.decode(content)
        if not may_stop:
            held, self._held = self._held, ""
            return held
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
        """Return the text that was held back, as nothing follows to complete a stop string; drop half a character."""
        held, self._held = self._held, ""
        self._half, _ = self._decoder.getstate()
        self._decoder.reset()
        return held

    @property
    def rest(self) -> str:
        """The incomplete character that the last `flush` dropped, as U+FFFD, which `Tokenizer.decode` gives for it."""
        return self._half.decode("utf-8", "replace")


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text may begin the stop string."""
    return next(size for size in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:size]))
