"""What is kept of earlier requests, against a list that is searched from end to end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.inference.prefixes import Prefixes

MOST = 7  # tokens: with a byte for each


class Naive:
    """The same by looking at all of them."""

    def __init__(self) -> None:
        self.kept: list[list[int]] = []

    def keep(self, tokens: list[int]) -> None:
        if len(tokens) > MOST:
            return
        for each in self.kept:
            if each[: len(tokens)] == tokens:
                self.use(each)
                return
        self.kept = [each for each in self.kept if tokens[: len(each)] != each] + [tokens]
        while sum(map(len, self.kept)) > MOST:
            self.kept.pop(0)

    def longest(self, tokens: list[int]) -> int:
        def common(each: list[int]) -> int:
            return next(n for n in range(len(each), -1, -1) if each[:n] == tokens[:-1][:n])

        return max(map(common, self.kept), default=0)

    def use(self, tokens: list[int]) -> None:
        self.kept.remove(tokens)
        self.kept.append(tokens)


def held(tokens: list[int]) -> np.ndarray:
    """What a cache holds of tokens: here the tokens themselves."""
    return np.array(tokens, np.int8).reshape(1, 1, -1, 1)


tokens = st.lists(st.sampled_from([0, 1, 2, 100, 127]), min_size=1, max_size=MOST + 1)


@given(st.lists(st.tuples(st.booleans(), tokens), max_size=40))
def test_what_is_found_is_the_longest_of_what_was_used_last(asked: list[tuple[bool, list[int]]]):
    prefixes, naive = Prefixes(MOST), Naive()
    for keeps, each in asked:
        if keeps:
            prefixes.keep(each, held(each))
            naive.keep(each)
            continue
        length, found = naive.longest(each), prefixes.longest(each)
        assert (found is None) == (length == 0)
        if found is not None:
            assert found.tokens.tolist() == found.keys_and_values.ravel().tolist() == each[:length]
            used = {tuple(kept.tokens.tolist()): kept for kept in prefixes._kept.values()}
            naive.use(list(list(used)[-1]))  # where several fit, any of them
        assert [kept.tokens.tolist() for kept in prefixes._kept.values()] == naive.kept


def test_tokens_are_in_their_order_however_large():
    prefixes = Prefixes(1 << 20)
    for each in ([1, 2], [256, 2], [1, 300, 5], [1, 70_000, 6]):
        prefixes.keep(each, held([0] * len(each)))
    for each in ([1, 300, 5, 9], [1, 70_000, 6, 9], [256, 2, 9]):
        found = prefixes.longest(each)
        assert found is not None
        assert found.tokens.tolist() == each[:-1]
        assert found.tokens.dtype == np.int64


def test_what_is_kept_is_a_copy():
    prefixes, cache = Prefixes(1 << 20), held([1, 2])
    prefixes.keep([1, 2], cache)
    cache[...] = 0
    found = prefixes.longest([1, 2, 3])
    assert found is not None
    assert found.keys_and_values.ravel().tolist() == [1, 2]


def test_nothing_is_kept_twice():
    prefixes = Prefixes(1 << 20)
    for each in ([1, 2], [1, 2, 3], [1], [1, 2, 3], [2]):
        prefixes.keep(each, held(each))
    assert [kept.tokens.tolist() for kept in prefixes._kept.values()] == [[1, 2, 3], [2]]
