"""Documents packed into rows: every token once, whole where they fit, and the same rows whoever asks for them."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import ConfigError, DataError
from tinygrad_chat.text import packing
from tinygrad_chat.text.packing import PackedRows, best_fit

BOS = 7_000_000  # and every other token has a number of its own
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def corpus(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Documents of these lengths, each after a BOS, and a BOS behind the last."""
    starts = np.cumsum([0, *lengths])
    tokens = np.arange(starts[-1] + 1)
    tokens[starts] = BOS
    return tokens, starts


def epoch_of(rows: PackedRows, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    batches = [rows.take(row, 1) for row in range(epoch * rows.rows, (epoch + 1) * rows.rows)]
    tokens, targets = zip(*batches, strict=True)
    return np.concatenate(tokens), np.concatenate(targets)


@given(lengths=LENGTHS, context=st.integers(1, 24), seed=st.integers(0, 3), epoch=st.integers(0, 2))
def test_in_each_epoch_every_token_is_an_input_once_and_the_next_its_target(lengths, context, seed, epoch):
    tokens, starts = corpus(lengths)
    inputs, targets = epoch_of(PackedRows(tokens, starts, context=context, seed=seed), epoch)
    counts = targets != -1
    assert Counter(zip(inputs[counts], targets[counts], strict=True)) == Counter(itertools.pairwise(tokens))


@given(lengths=LENGTHS, context=st.integers(1, 24))
def test_only_the_end_of_a_blocks_last_row_is_padding(lengths, context):
    _, targets = epoch_of(PackedRows(*corpus(lengths), context=context, seed=0))
    unfilled = targets[(targets == -1).any(axis=1)]
    assert len(unfilled) <= 1
    assert np.all(np.diff((unfilled == -1).astype(int), axis=1) >= 0)


@given(lengths=LENGTHS, context=st.integers(1, 24))
def test_a_row_begins_with_a_document_or_the_rest_of_one_that_the_row_before_cuts(lengths, context):
    for before, row in zip([[], *(rows := best_fit(lengths, context))], rows, strict=False):
        assert all(start == 0 for _, start, _ in row[1:])
        number, start, _ = row[0]
        assert start == 0 or before[-1][::2] == (number, start)
    assert sum(stop - start for row in rows for _, start, stop in row) == sum(lengths)


def test_a_document_that_fits_is_cut_only_where_none_fits():
    assert best_fit([4, 5, 3, 2, 1], 5) == [[(1, 0, 5)], [(0, 0, 4), (4, 0, 1)], [(2, 0, 3), (3, 0, 2)]]
    assert best_fit([4, 4], 5) == [[(1, 0, 4), (0, 0, 1)], [(0, 1, 4)]]
    assert best_fit([12], 5) == [[(0, 0, 5)], [(0, 5, 10)], [(0, 10, 12)]]


def web_like(random: np.random.Generator, documents: int) -> list[int]:
    """Lengths as the web has them: half below 700 tokens, one in twenty above 5,000."""
    return np.clip(random.lognormal(6.5, 1.2, documents), 20, 100_000).astype(int).tolist()


def test_at_2048_tokens_hardly_a_position_is_lost_and_few_documents_are_cut():
    context, lengths = 2048, web_like(np.random.default_rng(0), 3000)
    rows = PackedRows(*corpus(lengths), context=context, seed=0)
    assert rows.rows * context / sum(lengths) < 1.01
    fitting = {number for number, length in enumerate(lengths) if length <= context}
    pieces = Counter(number for row in best_fit(lengths, context) for number, _, _ in row)
    assert sum(pieces[number] > 1 for number in fitting) < 0.01 * len(fitting)


def test_a_batch_is_the_same_whatever_was_asked_for_before(monkeypatch):
    monkeypatch.setattr(packing, "BLOCK", 3)
    tokens, starts = corpus([5, 11, 2, 8, 30, 1, 7, 7, 19, 4])
    asked: Any = PackedRows(tokens, starts, context=8, seed=1)
    for number in (9, 0, 4, 9, 1):
        fresh = PackedRows(tokens, starts, context=8, seed=1)
        np.testing.assert_array_equal(asked.take(4 * number, 4), fresh.take(4 * number, 4))


def test_batches_of_any_size_go_through_the_same_rows(monkeypatch):
    monkeypatch.setattr(packing, "BLOCK", 2)
    rows = PackedRows(*corpus([5, 11, 2, 8, 30, 1, 7, 7, 19, 4]), context=8, seed=1)
    by_six, by_two = (np.concatenate([rows.take(first, size)[0] for first in range(0, 30, size)]) for size in (6, 2))
    np.testing.assert_array_equal(by_six, by_two)


@pytest.mark.parametrize("rows", [1, 1000], ids=["by the order of blocks", "by the order in a block"])
def test_epochs_and_seeds_differ(monkeypatch, rows):
    monkeypatch.setattr(packing, "BLOCK", rows)
    tokens, starts = corpus([8] * 10)
    first = PackedRows(tokens, starts, context=8, seed=1)
    assert len({epoch_of(first, epoch)[0].tobytes() for epoch in range(4)}) == 4
    assert epoch_of(first)[0].tobytes() != epoch_of(PackedRows(tokens, starts, context=8, seed=2))[0].tobytes()


@pytest.mark.parametrize(
    ("tokens", "starts", "options", "error", "message"),
    [
        ([BOS], [0], {}, DataError, "packing: expected at least 2 tokens, received 1; use a longer text"),
        ([], [], {}, DataError, "packing: expected at least 2 tokens, received 0; use a longer text"),
        ([BOS, 1], [0], {"context": 0}, ConfigError, "context: expected at least 1, received 0"),
    ],
)
def test_rows_that_cannot_be_are_refused(tokens, starts, options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        PackedRows(np.array(tokens), np.array(starts, int), **{"context": 4, "seed": 0, **options})
