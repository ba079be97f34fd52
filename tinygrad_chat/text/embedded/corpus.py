"""An embedded corpus: conversations that are generated on the fly, and what is held out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinygrad_chat.text.conversations import Conversation


@dataclass(frozen=True)
class EmbeddedCorpus:
    """Conversations to train on, by their `--data` name; `about` says in a line what they teach.

    `make(seed)` generates `count` of them lazily, always the same ones for the same seed and `version`.
    """

    name: str
    about: str
    make: Callable[[int], Iterator[Conversation]]
    count: int
    version: str

    def conversations(self, seed: int = 0) -> Iterator[Conversation]:
        """Yield the training conversations; nothing that tasks ask is among them."""
        return self.make(seed)


def is_held_out(name: str, share: int = 10) -> bool:
    """Return whether a made-up name, a topic, a number or a word is held out for tasks, as one in `share` is.

    That follows from the name alone, so training and tasks agree without a list.
    """
    return zlib.crc32(name.lower().encode()) % share == 0
