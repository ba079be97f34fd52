"""Models that answer in chats as a test wants, and a tokenizer of single bytes with the tokens of chats."""

from __future__ import annotations

import itertools

from tests.models.table_model import certain, table_model
from tinygrad_chat import GPT
from tinygrad_chat.text.tokenizers import BPETokenizer

BYTES = BPETokenizer.from_merges([])
V = BYTES.size
(BOS, USER_START, USER_END, START, END, CALL_START, CALL_END, RESULT_START, RESULT_END) = range(256, 265)


def tokens_of(*said: str | int) -> list[int]:
    """Return the tokens of texts, and special ones as they are."""
    return [token for each in said for token in ([each] if isinstance(each, int) else each.encode())]


def answering(*said: str | int, context: int = 64, first: int = START) -> GPT:
    """Return a bigram that writes this after `first`, no token twice, and then the end of an answer."""
    chain = [first, *tokens_of(*said), END]
    return table_model(certain(V, dict(itertools.pairwise(chain))), context)
