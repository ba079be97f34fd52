"""Tokens and targets in 32 bits on a device, and what does not fit there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, DeviceArray, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tinygrad_chat.backend import get_backend, load_kernels, narrowed
from tinygrad_chat.ops import cross_entropy, embedding


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.array([5, -1, 2**31 - 1, -(2**31)]), [5, -1, 2**31 - 1, -(2**31)]),
        (np.array([2**31, 2**32, -(2**31) - 1, 2**63 - 1]), [2**31 - 1, 2**31 - 1, -(2**31), 2**31 - 1]),
        (np.array([7, 2**32, 2**64 - 1], np.uint64), [7, 2**31 - 1, 2**31 - 1]),
        (np.array([3, 2**32 - 1], np.uint32), [3, 2**31 - 1]),
    ],
)
def test_a_number_that_does_not_fit_becomes_the_nearest_that_does(x: Any, expected: list[int]):
    found = narrowed(x)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int16, np.float32, bool])
def test_what_is_no_wider_and_what_is_no_whole_number_stays(kind: Any):
    x = np.ones(3, kind)
    assert narrowed(x) is x


def test_a_device_holds_them_in_32_bits_and_the_host_as_they_are():
    tokens = np.array([[1, 2]])
    with standing_in():
        for given in (tokens, tokens.tolist(), DEVICE.xp.asarray(tokens)):
            found = DEVICE.whole_numbers(given)
            assert isinstance(found, DeviceArray)
            assert found.dtype == np.int32
            np.testing.assert_array_equal(DEVICE.to_host(found), tokens)
    assert get_backend("numpy").whole_numbers(tokens) is tokens


@needs_compiler
def test_kernels_take_no_number_beyond_32_bits_for_one_of_the_vocabulary():
    kernels, beyond = load_kernels("cuda"), 2**32  # whose lower half is 0
    with standing_in():
        table, indices = DEVICE.xp.ones((3, 4), np.float32), DEVICE.xp.asarray(np.array([0, beyond, 1 - beyond]))
        rows = DEVICE.to_host(kernels[embedding](table, indices)[0])
        np.testing.assert_array_equal(np.isnan(rows[:, 0]), [False, True, True])
        losses = {
            ignored: float(kernels[cross_entropy](table, indices, ignore_index=ignored)[0])
            for ignored in (-1, beyond, 1 - beyond)
        }
        assert all(map(np.isnan, losses.values()))  # as one of the two is ignored at most
        some = DEVICE.xp.asarray(np.array([0, beyond, 1]))
        loss = float(kernels[cross_entropy](table, some, ignore_index=beyond)[0])
    assert loss == pytest.approx(np.log(4))
