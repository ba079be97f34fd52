"""Dropout's random numbers: of a known sequence, and the same in one piece or in several."""

from __future__ import annotations

import numpy as np
import pytest

from tinygrad_chat import ops
from tinygrad_chat.ops.dropout import uniform


def test_the_numbers_are_those_of_splitmix64():
    """The first three of two seeds, as published: their upper 24 bits."""
    for seed, numbers in (
        (0, (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)),
        (1234567, (6457827717110365317, 3203168211198807973, 9817491932198370423)),
    ):
        expected = np.array([(number >> 40) * 2.0**-24 for number in numbers], np.float32)
        np.testing.assert_array_equal(uniform(np, seed, 0, 3), expected)


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_pieces_of_an_array_drop_what_the_whole_does(cut: int):
    x = np.ones(31, np.float32)
    whole = ops.dropout(x, rate=0.4, seed=9)
    pieces = [ops.dropout(x[:cut], rate=0.4, seed=9), ops.dropout(x[cut:], rate=0.4, seed=9, offset=cut)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert set(whole.tolist()) == {0.0, float(np.float32(1 / 0.6))}
