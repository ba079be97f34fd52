"""Trains byte-pair encoding: the most frequent pair is merged, again and again (Sennrich et al., arXiv:1508.07909).

Words are counted once. Each is a string with one character per token, so that `str.replace` merges a pair in it. A heap
orders the pairs by count. Counts fall as other pairs merge, so a count from the heap is checked before it is used.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import expect
from tinygrad_chat.text.tokenizers.bpe import CHAT_TOKENS, MAX_TOKENS, BPETokenizer
from tinygrad_chat.text.tokenizers.rust_training import merges_by_rustbpe
from tinygrad_chat.text.tokenizers.splitting import Part, Splitter

Progress = Callable[[str, int, int], None]

HUGGING_FACE = (*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173)
"""The bytes in the order of the letters that stand for them in Hugging Face's files: printable ones first."""


def train_bpe(
    documents: Iterable[Iterable[str]],
    vocabulary: int,
    *,
    pattern: str = "nanochat",
    alphabet: Sequence[int] = range(256),
    special_tokens: Sequence[str] = CHAT_TOKENS,
    trainer: str = "python",
    progress: Progress | None = None,
) -> BPETokenizer:
    """Train a tokenizer of `vocabulary` tokens, including bytes and special ones; fewer if the text has no more pairs.

    Each document comes in pieces. `alphabet` is as in `learn_merges`: with HUGGING_FACE, ties are broken as the library
    `tokenizers` breaks them. `progress` is called as merges are found. The `trainer` rustbpe finds the same merges
    faster, in gigabytes of text. Raises ConfigError for a vocabulary without room for the bytes.
    """
    count = _number_of_merges(vocabulary, special_tokens)
    expect("trainer", trainer, choices=("python", "rustbpe"))
    made_of = {"pattern": pattern, "alphabet": alphabet, "special_tokens": special_tokens}
    if trainer == "python":
        return bpe_of_words(count_words(documents, pattern), vocabulary, **made_of, progress=progress)
    if tuple(alphabet) != tuple(range(256)):
        raise ConfigError("trainer: rustbpe breaks ties by bytes; leave the alphabet out, or train with python")
    return BPETokenizer.from_merges(merges_by_rustbpe(documents, count, pattern), **made_of)


def bpe_of_words(
    words: Mapping[bytes, int],
    vocabulary: int,
    *,
    pattern: str = "nanochat",
    alphabet: Sequence[int] = range(256),
    special_tokens: Sequence[str] = CHAT_TOKENS,
    progress: Progress | None = None,
) -> BPETokenizer:
    """Train as `train_bpe` does, on the words that `count_words` has counted with the same pattern."""
    count = _number_of_merges(vocabulary, special_tokens)
    merges = learn_merges(words, count, alphabet=alphabet, progress=progress)
    return BPETokenizer.from_merges(merges, alphabet=alphabet, special_tokens=special_tokens, pattern=pattern)


def _number_of_merges(vocabulary: int, special_tokens: Sequence[str]) -> int:
    expect("vocabulary", vocabulary, minimum=256 + len(special_tokens), maximum=MAX_TOKENS)
    return vocabulary - 256 - len(special_tokens)


def count_words(documents: Iterable[Iterable[str]], pattern: str = "nanochat") -> Counter[bytes]:
    """Return how often each pre-token, as bytes, occurs in documents, each of which comes in pieces."""
    splitter, counts = Splitter(pattern), Counter[str]()
    for document in documents:
        for pieces in splitter.split_document(document):
            counts.update([pieces.text] if isinstance(pieces, Part) else pieces)
    return Counter({word.encode("utf-8", "surrogateescape"): number for word, number in counts.items()})


def learn_merges(
    words: Mapping[bytes, int], count: int, *, alphabet: Sequence[int] = range(256), progress: Progress | None = None
) -> list[tuple[int, int]]:
    """Return up to `count` merges, each of the pair that is most frequent at that point; merge i makes token 256 + i.

    `alphabet` has the byte of each of the first 256 tokens. Of equally frequent pairs, the one with the lowest tokens
    comes first. There are fewer merges if every word has become one token.
    """
    token_of = {byte: token for token, byte in enumerate(alphabet)}
    texts = [word.decode("latin-1").translate(token_of) for word in words]
    numbers = list(words.values())
    pair_counts: defaultdict[str, int] = defaultdict(int)
    where: defaultdict[str, list[int]] = defaultdict(list)
    for at, text in enumerate(texts):
        for left, right in itertools.pairwise(text):
            pair_counts[left + right] += numbers[at]
            where[left + right].append(at)
    heap = [(-number, pair) for pair, number in pair_counts.items()]
    heapq.heapify(heap)
    merges: list[tuple[int, int]] = []
    while heap and len(merges) < count:
        negative, pair = heapq.heappop(heap)
        number = pair_counts.get(pair, 0)
        if number != -negative:  # the count has fallen since
            if number:
                heapq.heappush(heap, (-number, pair))
            continue
        left, right = pair
        made = chr(256 + len(merges))
        merges.append((ord(left), ord(right)))
        new_pairs: defaultdict[str, int] = defaultdict(int)
        for at in where.pop(pair):
            if pair in texts[at]:
                text = texts[at] = texts[at].replace(pair, made)
                for new in _count_change(text, left, right, made, numbers[at], pair_counts, new_pairs):
                    where[new].append(at)
        del pair_counts[pair]
        pair_counts.update(new_pairs)
        for new, number in new_pairs.items():
            heapq.heappush(heap, (-number, new))
        if progress is not None and len(merges) % 64 == 0:
            progress("merging", len(merges), count)
    return merges


def _count_change(
    text: str,
    left: str,
    right: str,
    made: str,
    number: int,
    pair_counts: dict[str, int],
    new_pairs: dict[str, int],
) -> list[str]:
    """Update the counts after a merge in a word that occurs `number` times; return the pairs that are new in it."""
    found = []
    at = text.find(made)
    while at >= 0:
        if at:
            before = text[at - 1]
            found.append(before + made)
            pair_counts[(right if before == made else before) + left] -= number
        following = text[at + 1 : at + 2]
        if following and following != made:
            found.append(made + following)
            pair_counts[right + following] -= number
        at = text.find(made, at + 1)
    for pair in found:
        new_pairs[pair] += number
    return found
