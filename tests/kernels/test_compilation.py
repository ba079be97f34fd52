"""What is compiled: it lets other threads run, it is kept where there is room, and its exponential is exact enough."""

from __future__ import annotations

import errno
import math

import numpy as np
import pytest

pytest.importorskip("numba")

from tinygrad_chat.kernels.numba import pointwise
from tinygrad_chat.kernels.numba.compilation import compiled
from tinygrad_chat.kernels.numba.exponential import exponential


@compiled
def apply(x, out):
    for i in range(x.size):
        out[i] = exponential(x[i])


def test_the_exponential_is_within_two_units_in_the_last_place():
    x = np.linspace(-87, 88, 200_001).astype(np.float32)
    found = np.empty_like(x)
    apply(x, found)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(found - exact) / np.spacing(exact.astype(np.float32))) < 2


def test_kernels_let_other_threads_run():
    for kernel in (pointwise._gelu, pointwise._gelu_backward, apply):
        assert kernel.targetoptions["nogil"]


def test_a_full_disk_where_machine_code_is_kept_stops_nobody(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)

    @compiled
    def halve(x):
        return x / 2

    assert halve(3.0) == 1.5
    assert math.isfinite(halve(1.0))
