"""Batches of text that cannot be: one line each."""

from __future__ import annotations

import numpy as np
import pytest

from tinygrad_chat.errors import ConfigError, DataError
from tinygrad_chat.text.batches import batches_in_order, expect_known, random_batch


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"context": 10}, DataError, r"random_batch: expected more than 10 tokens \(the context\), received 10"),
        ({"context": 0}, ConfigError, "context: expected at least 1, received 0"),
        ({"batch_size": 0}, ConfigError, "batch_size: expected at least 1, received 0"),
    ],
)
def test_windows_that_cannot_be_drawn_are_refused(options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        random_batch(np.arange(10), random=np.random.default_rng(0), **{"batch_size": 2, "context": 4, **options})


def test_the_longest_window_is_all_tokens_but_the_last():
    tokens, targets = random_batch(np.arange(10), batch_size=1, context=9, random=np.random.default_rng(0))
    np.testing.assert_array_equal([tokens[0], targets[0]], [np.arange(9), np.arange(1, 10)])


def test_windows_in_order_need_a_context():
    with pytest.raises(ConfigError, match=r"^context: expected at least 1, received 0$"):
        next(batches_in_order(np.arange(10), batch_size=1, context=0))


def test_tokens_that_no_vocabulary_has_tell_of_a_damaged_disk():
    batch = np.array([[0, 1]]), np.array([[1, -1]])
    expect_known(batch, 2)
    for damaged in ((np.array([[0, 2]]), batch[1]), (batch[0], np.array([[2, -1]]))):
        with pytest.raises(DataError, match=r"expected tokens below 2, received 2: .* tgc data clear --yes"):
            expect_known(damaged, 2)
