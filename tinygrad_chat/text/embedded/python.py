"""What the functions of this Python do, in the words of its own documentation."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus


def _conversations(seed: int) -> Iterator[Conversation]:
    yield Conversation.of("What does str.split do?", "Return a list of the substrings in the string.")


PYTHON = EmbeddedCorpus(
    "python", "what the functions of your own Python do", _conversations, f"1 for Python {platform.python_version()}"
)
