"""Merges bytes into tokens: of all pairs of neighbours, the one of the lowest rank is merged, until none has a rank.

Three ways to the same tokens: a list for a word, a heap for a long piece, and windows for one of any length.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

SHORT = 128  # bytes up to which a scan of all pairs is faster than a heap
WINDOW = 1 << 18  # bytes merged at a time in a piece of unbounded length
MARGIN = 1 << 10  # last bytes whose tokens may still change; what follows changes earlier ones only in contrived texts
NEVER = 1 << 62


class Merges:
    """A table of merges: `pairs` of tokens in the order of their ranks, and `results`, the token each becomes."""

    def __init__(self, pairs: Iterable[tuple[int, int]], results: Iterable[int]) -> None:
        self.results = list(results)
        self.rank_of = {pair: rank for rank, pair in enumerate(pairs)}

    def add(self, pair: tuple[int, int], result: int) -> None:
        """Add a merge that ranks after all others."""
        self.rank_of[pair] = len(self.results)
        self.results.append(result)

    def merge(self, tokens: list[int]) -> list[int]:
        """Return the tokens of one piece, given the list of those of its single bytes, which is overwritten."""
        if len(tokens) > SHORT:
            return self._merge_long(tokens)
        rank_of, results = self.rank_of, self.results
        ranks = [rank_of.get(pair, NEVER) for pair in itertools.pairwise(tokens)]
        while ranks:
            rank = min(ranks)
            if rank == NEVER:
                break
            at = ranks.index(rank)  # the leftmost of them
            tokens[at : at + 2] = [results[rank]]
            del ranks[at]
            if at:
                ranks[at - 1] = rank_of.get((tokens[at - 1], tokens[at]), NEVER)
            if at < len(ranks):
                ranks[at] = rank_of.get((tokens[at], tokens[at + 1]), NEVER)
        return tokens

    def _merge_long(self, tokens: list[int]) -> list[int]:
        """Merge with a heap, in n log n steps for n bytes. A token that was merged into the one before it is -1.

        The heap holds rank * n + position: comparing one number takes half the time of comparing two.
        """
        rank_of, results, end = self.rank_of, self.results, len(tokens)
        after, before = list(range(1, end + 1)), list(range(-1, end - 1))
        pairs = itertools.pairwise(tokens)
        heap = [rank * end + at for at, pair in enumerate(pairs) if (rank := rank_of.get(pair, NEVER)) < NEVER]
        heapq.heapify(heap)
        while heap:
            rank, at = divmod(heapq.heappop(heap), end)
            right = after[at]
            if right == end or rank_of.get((tokens[at], tokens[right])) != rank:
                continue  # one of the two has been merged since
            tokens[at], tokens[right] = results[rank], -1
            after[at] = further = after[right]
            if further < end:
                before[further] = at
                if (rank := rank_of.get((tokens[at], tokens[further]), NEVER)) < NEVER:
                    heapq.heappush(heap, rank * end + at)
            left = before[at]
            if left >= 0 and (rank := rank_of.get((tokens[left], tokens[at]), NEVER)) < NEVER:
                heapq.heappush(heap, rank * end + left)
        return [token for token in tokens if token >= 0]


def merge_endless(
    merge: Callable[[bytes], list[int]], parts: Iterable[bytes], tokens: Sequence[bytes]
) -> Iterator[list[int]]:
    """Yield the tokens of one piece that comes in `parts`, however long, each as soon as it is certain.

    `merge` returns the tokens of a whole piece, and `tokens` has the bytes of each. A sequence of tokens is the result
    of merging if and only if each two neighbours in it are the result of merging those two alone: until the first merge
    across a boundary, each side merges as if it were alone. So the tokens after any boundary are those of the text
    after it.
    """
    in_order = sorted(tokens)
    longest = max(map(len, tokens))
    waiting, due = b"", WINDOW
    for part in parts:
        waiting += part
        if len(waiting) < max(due, 4 * longest):
            continue
        found = merge(waiting)
        count, length = _certain(merge, waiting, found, tokens, in_order, len(waiting) - max(MARGIN, 2 * longest))
        if count:
            yield found[:count]
            waiting = waiting[length:]
        due = max(WINDOW, 2 * len(waiting))
    yield merge(waiting)


def _certain(
    merge: Callable[[bytes], list[int]],
    content: bytes,
    found: Sequence[int],
    tokens: Sequence[bytes],
    in_order: Sequence[bytes],
    most: int,
) -> tuple[int, int]:
    """Return how many of the tokens `found` in `content` hold whatever follows, and their length, `most` or less.

    Whatever follows, some token crosses the present end, or one ends there. The tokens before it are those of a whole
    piece. So the tokens that all such pieces have in common are certain.
    """
    count = length = 0
    while length + len(tokens[found[count]]) <= most:
        length += len(tokens[found[count]])
        count += 1
    longest = max(map(len, tokens))
    for start in range(max(length + 1, len(content) - longest + 1), len(content)):
        crossing = content[start:]
        at = bisect.bisect_right(in_order, crossing)
        crosses = at < len(in_order) and in_order[at].startswith(crossing)
        if crosses and merge(content[length:start])[0] != found[count]:
            return 0, 0
    return count, length
