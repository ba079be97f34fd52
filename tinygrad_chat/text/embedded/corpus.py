"""An embedded corpus: conversations that are made on the spot, and what makes them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinygrad_chat.text.conversations import Conversation


@dataclass(frozen=True)
class EmbeddedCorpus:
    """Conversations to train on, by the name that `--data` knows; `about` says in a line what they teach.

    `make(seed)` yields them: `count` of them, the same ones for the same seed and `version`. Nothing is made before.
    """

    name: str
    about: str
    make: Callable[[int], Iterator[Conversation]]
    count: int
    version: str

    def conversations(self, seed: int = 0) -> Iterator[Conversation]:
        """Yield the conversations that are trained on; nothing that tasks ask is among them."""
        return self.make(seed)


def is_held_out(name: str, share: int = 10) -> bool:
    """Whether a made-up name, a topic, a number or a word is kept for tasks, as one in `share` is.

    It follows from the name alone, so whatever trains and whatever asks agree without a list.
    """
    return zlib.crc32(name.lower().encode()) % share == 0
