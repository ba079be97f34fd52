"""Reads and writes ranks, the files of the library `tiktoken`: on each line a token, in base64, and its rank.

It merges the neighbours that together are the token of the lowest rank, whatever the two are. That is the same as
merging ranked pairs: a token that merging can reach at all is always made of the same two.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.text.tokenizers.bpe import CHAT_TOKENS, MAX_TOKENS, BPETokenizer
from tinygrad_chat.text.tokenizers.merging import Merges


def from_tiktoken(
    content: bytes, *, pattern: str = "nanochat", special_tokens: Sequence[str] = CHAT_TOKENS
) -> BPETokenizer:
    """Make a tokenizer of ranks, which say neither how text is split nor which special tokens follow them.

    Raises ConfigError for any other file.
    """
    if content.count(b"\n") >= MAX_TOKENS:
        raise ConfigError(f"expected at most {MAX_TOKENS} ranks")
    tokens: list[bytes] = []
    for number, line in enumerate(content.splitlines()):
        try:
            letters, rank = line.split(b" ")
            tokens.append(base64.b64decode(letters, validate=True))
            in_order = rank == b"%d" % number
        except (ValueError, binascii.Error):
            in_order = False
        if not in_order or not tokens[-1]:
            raise ConfigError(f"line {number + 1}: expected a token in base64 and the rank {number}")
    special = {name: len(tokens) + number for number, name in enumerate(special_tokens)}
    return BPETokenizer(
        [*tokens, *[b""] * len(special)],
        merges_of(tokens),
        special_tokens=special,
        bos=special_tokens[0],
        pattern=pattern,
        ignore_merges=True,
    )


def to_tiktoken(tokenizer: BPETokenizer) -> bytes:
    """Return the ranks of a tokenizer. Raises ConfigError for one whose tokens are not numbered by their ranks."""
    named = {*tokenizer.special_tokens.values(), *tokenizer.added_tokens.values()}
    tokens = [token for number, token in enumerate(tokenizer.tokens) if number not in named]
    ranked = tokenizer.tokens[: len(tokens)] == tokens and all(tokens) and merges_of(tokens) == tokenizer.merges
    if not ranked or tokenizer.normalize:
        raise ConfigError("its token ids are not in merge order; write a tokenizer.json instead")
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))


def merges_of(tokens: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return, for each token of several bytes that merging reaches, the two tokens that it is made of."""
    single = {token[0]: number for number, token in enumerate(tokens) if len(token) == 1}
    if len(single) < 256:
        raise ConfigError(f"expected a token for each of the 256 bytes, received {len(single)}")
    merges = Merges([], [])
    for number, token in enumerate(tokens):
        if len(token) > 1:
            parts = merges.merge([single[byte] for byte in token])
            if len(parts) == 2:
                merges.add((parts[0], parts[1]), number)
    return list(merges.rank_of)
