"""Which merges make a text shortest: the trainer of byte-pair encoding (Sennrich et al., arXiv:1508.07909).

Words are counted once, and each is a string with a character for every token: `str.replace` merges a pair in it. A heap
holds the pairs by their counts. Counts fall as others merge, so one from the heap is looked up again before it is used.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import expect
from tinygrad_chat.text.tokenizers.bpe import CHAT_TOKENS, MOST_TOKENS, BPETokenizer
from tinygrad_chat.text.tokenizers.rust_training import merges_by_rustbpe
from tinygrad_chat.text.tokenizers.splitting import Part, Splitter

Progress = Callable[[str, int, int], None]

HUGGING_FACE = (*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173)
"""The bytes in the order of the letters by which Hugging Face's files write them: printable ones first."""


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
    """Return a tokenizer of `vocabulary` tokens, with bytes and special ones, or fewer where a text has no more.

    Each of the `documents` comes in pieces. `alphabet` is as `learn_merges` has it: with HUGGING_FACE, ties are broken
    as the library `tokenizers` breaks them. `progress` is told of merges. The `trainer` rustbpe
    finds the same merges sooner, in texts of gigabytes. Raises ConfigError for a vocabulary without room for the bytes.
    """
    count = _number_of_merges(vocabulary, special_tokens)
    expect("trainer", trainer, choices=("python", "rustbpe"))
    made_of = {"pattern": pattern, "alphabet": alphabet, "special_tokens": special_tokens}
    if trainer == "python":
        return bpe_of_words(count_words(documents, pattern), vocabulary, **made_of, progress=progress)
    if tuple(alphabet) != tuple(range(256)):
        raise ConfigError("trainer: rustbpe breaks ties by bytes; leave the alphabet out, or train by python")
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
    """Return what `train_bpe` does, of the words that `count_words` has found by the same pattern."""
    count = _number_of_merges(vocabulary, special_tokens)
    merges = learn_merges(words, count, alphabet=alphabet, progress=progress)
    return BPETokenizer.from_merges(merges, alphabet=alphabet, special_tokens=special_tokens, pattern=pattern)


def _number_of_merges(vocabulary: int, special_tokens: Sequence[str]) -> int:
    expect("vocabulary", vocabulary, minimum=256 + len(special_tokens), maximum=MOST_TOKENS)
    return vocabulary - 256 - len(special_tokens)


def count_words(documents: Iterable[Iterable[str]], pattern: str = "nanochat") -> Counter[bytes]:
    """Return how often each pre-token occurs in documents, each of which comes in pieces, as bytes."""
    splitter, counts = Splitter(pattern), Counter[str]()
    for document in documents:
        for pieces in splitter.split_document(document):
            counts.update([pieces.text] if isinstance(pieces, Part) else pieces)
    return Counter({word.encode("utf-8", "surrogateescape"): number for word, number in counts.items()})


def learn_merges(
    words: Mapping[bytes, int], count: int, *, alphabet: Sequence[int] = range(256), progress: Progress | None = None
) -> list[tuple[int, int]]:
    """Return up to `count` merges, each the pair that is most frequent then; token 256 + i is what merge i makes.

    `alphabet` has the byte of each of the first 256 tokens. Of pairs that are equally frequent, that of the lowest
    tokens comes first. There are fewer merges where every word has become one token.
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
        if number != -negative:  # it has fallen since
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
    """Count what a merge changed in a word, of which there are `number`; return the pairs that are new in it."""
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
