"""Lesson 6: byte-pair encoding in forty lines. Count pairs, merge the most frequent, repeat: ours finds the same."""

from collections import Counter
from itertools import pairwise
from pydoc_data.topics import topics

from tinygrad_chat.text.tokenizers.bpe_training import train_bpe
from tinygrad_chat.text.tokenizers.splitting import Splitter

TEXT = "".join(topics[name] for name in ("assert", "while", "with", "lambda"))
MERGES = 150
split = Splitter("nanochat").split  # "It's 2026!" is "It", "'s", " ", "20", "26", "!": no merge crosses these


def merge(tokens: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Replace each occurrence of a pair by a new token, from left to right."""
    merged: list[int] = []
    for token in tokens:
        if merged and (merged[-1], token) == pair:
            merged[-1] = new
        else:
            merged.append(token)
    return merged


def train(text: str, count: int) -> list[tuple[int, int]]:
    """Return the merges: each time the pair of neighbours that is most frequent, of several the lowest."""
    words = [(list(word.encode()), number) for word, number in Counter(split(text)).items()]
    merges: list[tuple[int, int]] = []
    for new in range(256, 256 + count):
        counts: Counter[tuple[int, int]] = Counter()
        for tokens, number in words:
            for pair in pairwise(tokens):
                counts[pair] += number
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        words = [(merge(tokens, best, new), number) for tokens, number in words]
        merges.append(best)
    return merges


def encode(text: str, merges: list[tuple[int, int]]) -> list[int]:
    """Return the tokens of a text: every merge in the order in which it was learned."""
    encoded: list[int] = []
    for word in split(text):
        tokens = list(word.encode())
        for number, pair in enumerate(merges):
            tokens = merge(tokens, pair, 256 + number)
        encoded += tokens
    return encoded


merges = train(TEXT, MERGES)
ours = train_bpe([[TEXT]], 256 + MERGES + 9)  # with nine special tokens, such as <|bos|>
assert ours.merges == merges

for text in (TEXT, "Whatever is not in it, too: été 2026 😀"):
    assert encode(text, merges) == ours.encode(text).tolist()
    assert ours.decode(encode(text, merges)) == text

print(f"the first merges: {[ours.tokens[256 + number].decode() for number in range(12)]}")
print(f"{len(TEXT):,} characters are {len(encode(TEXT, merges)):,} tokens")
