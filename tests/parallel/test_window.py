"""What ranks add up and hand round in memory that all of them see."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.parallel import window
from tinygrad_chat.parallel.window import SharedWindow, open_window


def run(ranks: int, work: Callable[[SharedWindow, int], Any], *, piece: int, late: int = -1) -> list[Any]:
    """Let threads be ranks that share a window of so many bytes each; one of them comes `late` from every barrier."""
    pieces = [np.zeros(piece, np.uint8) for _ in range(ranks)]
    meeting = threading.Barrier(ranks, timeout=60)

    def barrier(rank: int) -> None:
        meeting.wait()
        if rank == late:
            time.sleep(0.001)

    def start(rank: int) -> Any:
        return work(SharedWindow(pieces, rank, functools.partial(barrier, rank)), rank)

    with ThreadPoolExecutor(ranks) as threads:
        return list(threads.map(start, range(ranks)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[np.ndarray], list[slice], int]:
    """Arrays of some ranks, shares of any length, and the bytes of a piece, for a few elements."""
    ranks = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(0, 23), min_size=ranks, max_size=ranks))
    dtype = np.dtype(draw(st.sampled_from(["float16", "float32", "float64"])))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    arrays = [random.normal(size=sum(lengths)).astype(dtype) for _ in range(ranks)]
    ends = np.cumsum(lengths).tolist()
    shares = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    return arrays, shares, 2 * dtype.itemsize * ranks * draw(st.integers(1, 9))


@given(case=cases(), late=st.integers(-1, 3))
def test_sums_are_those_of_all_ranks_in_order_however_many_blocks_they_take(
    case: tuple[list[np.ndarray], list[slice], int], late: int
):
    arrays, shares, piece = case

    def work(shared: SharedWindow, rank: int) -> list[np.ndarray]:
        own, sums = shares[rank], []
        for sign in (1, -1):  # the second must not reach those who still read the first
            into = np.full(own.stop - own.start, np.nan, arrays[rank].dtype)
            shared.reduce_scatter(sign * arrays[rank], shares, into)
            sums.append(into)
        return sums

    total = functools.reduce(np.add, arrays)
    for share, (first, second) in zip(shares, run(len(shares), work, piece=piece, late=late), strict=True):
        np.testing.assert_array_equal(first, total[share])
        np.testing.assert_array_equal(second, -total[share])


@given(case=cases(), late=st.integers(-1, 3))
def test_every_rank_gets_all_shares_however_many_blocks_they_take(
    case: tuple[list[np.ndarray], list[slice], int], late: int
):
    arrays, shares, piece = case
    expected = np.concatenate([array[share] for array, share in zip(arrays, shares, strict=True)])

    def work(shared: SharedWindow, rank: int) -> list[np.ndarray]:
        gathered = [sign * arrays[rank] for sign in (1, -1)]
        for array in gathered:
            shared.all_gather(array, shares)
        return gathered

    for first, second in run(len(shares), work, piece=piece, late=late):
        np.testing.assert_array_equal(first, expected)
        np.testing.assert_array_equal(second, -expected)


@pytest.mark.parametrize(
    ("together", "free", "opened"), [(2, 2**30, True), (1, 2**30, False), (2, 2 * window.BYTES, False)]
)
def test_a_window_is_opened_on_one_machine_with_room_for_it(
    together: int, free: int, opened: bool, monkeypatch: pytest.MonkeyPatch
):
    world = SimpleNamespace(
        Get_size=lambda: 2,
        Get_rank=lambda: 0,
        Split_type=lambda kind: SimpleNamespace(Get_size=lambda: together),
        allreduce=lambda mine, op: mine,
    )
    memory = SimpleNamespace(Shared_query=lambda rank: (bytearray(window.BYTES), 1))
    mpi = SimpleNamespace(
        COMM_TYPE_SHARED=0, LAND=0, Win=SimpleNamespace(Allocate_shared=lambda size, unit, comm: memory)
    )
    monkeypatch.setattr(window, "free_bytes", lambda: free)
    assert (open_window(mpi, world) is not None) == opened
