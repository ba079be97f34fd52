"""Threads that work together: what they hand each other, and what becomes of an error."""

from __future__ import annotations

import functools
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from tinygrad_chat.autograd import no_grad, recording
from tinygrad_chat.backend.host_threads import count_cores, product_threads
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.parallel import Communicator, ThreadTeam, use_threads


def blas_libraries() -> dict[str, int]:
    return {
        info["filepath"]: info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"
    }


OF_NUMPY = blas_libraries().keys()
"""Those that are there by now. Numba looks at SciPy's later, and multiplies nothing by it."""


def blas_threads() -> list[int]:
    return [threads for path, threads in blas_libraries().items() if path in OF_NUMPY]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_rank_works_once_in_a_thread_of_its_own_and_rank_0_in_the_callers(size):
    answers = ThreadTeam(size).run(lambda c: (c.rank, c.size, threading.current_thread()))
    assert [answer[:2] for answer in answers] == [(rank, size) for rank in range(size)]
    assert answers[0][2] is threading.current_thread()
    assert len({thread for _, _, thread in answers}) == size


@pytest.mark.parametrize("elements", [1, 2, 7, 1000])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_all_reduce_gives_every_rank_the_sum_in_the_order_of_ranks(size, elements):
    random = np.random.default_rng(0)
    arrays = [(10.0**rank * random.normal(size=(elements, 3))).astype(np.float32) for rank in range(size)]
    expected = functools.reduce(np.add, [array.copy() for array in arrays])
    ThreadTeam(size).run(lambda c: c.all_reduce(arrays[c.rank]))
    for array in arrays:
        np.testing.assert_array_equal(array, expected)


def test_all_reduce_can_be_called_again_and_again():
    arrays = [np.ones(5), np.ones(5)]

    def work(communicator: Communicator) -> None:
        for _ in range(10):
            communicator.all_reduce(arrays[communicator.rank])

    ThreadTeam(2).run(work)
    np.testing.assert_array_equal(arrays, np.full((2, 5), 2.0**10))


def test_the_callers_context_holds_on_every_rank():
    with no_grad(), np.errstate(all="raise"):
        assert ThreadTeam(3).run(lambda c: (recording(), np.geterr()["divide"])) == [(False, "raise")] * 3


def test_products_of_matrices_take_one_thread_meanwhile():
    before = blas_threads()
    seen = ThreadTeam(2).run(lambda c: blas_threads())
    assert seen == [[1] * len(before)] * 2
    assert blas_threads() == before


@pytest.mark.parametrize("asked_before", [False, True])
def test_compiled_products_take_one_thread_in_a_team_and_all_of_them_afterwards(asked_before: bool):
    before = use_threads()
    try:
        use_threads(2)
        if asked_before:
            product_threads()
        assert ThreadTeam(2).run(lambda c: product_threads()) == [1, 1]
        assert product_threads() == min(2, count_cores())
    finally:
        use_threads(before)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_when_no_rank_works_any_longer(failing):
    finished = []

    def work(communicator: Communicator) -> None:
        if communicator.rank == failing:
            raise ZeroDivisionError
        time.sleep(0.02)
        finished.append(communicator.rank)
        communicator.all_reduce(np.ones(3))  # would wait for ever

    with pytest.raises(ZeroDivisionError):
        ThreadTeam(3).run(work)
    assert sorted(finished) == sorted({0, 1, 2} - {failing})


def test_threads_are_those_of_the_products_unless_said_otherwise():
    before = use_threads()
    assert before == max(blas_threads())
    try:
        for threads in (1, 3):
            assert use_threads(threads) == threads
            at_work = min(threads, count_cores())
            assert set(blas_threads()) == {at_work}
            assert use_threads() == at_work
    finally:
        use_threads(before)


def test_all_reduce_refuses_what_it_could_not_write_to():
    square = np.ones((3, 3))
    with pytest.raises(ShapeError, match="in one piece"):
        ThreadTeam(2).run(lambda c: c.all_reduce(square.T if c.rank else square))
    with pytest.raises(ShapeError, match=r"of one size, received \[2, 3\]"):
        ThreadTeam(2).run(lambda c: c.all_reduce(np.ones(2 + c.rank)))


def test_a_thread_that_cannot_start_ends_the_work_of_those_that_did(monkeypatch: pytest.MonkeyPatch):
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        ThreadTeam(3).run(lambda c: c.all_reduce(np.ones(3)))
    assert not started[0].is_alive()
