"""`--threads` and kernels change a run by rounding only, and nothing from one run to the next."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tests.training.test_loop import Start, finish, log
from tinygrad_chat.autograd import reference_ops
from tinygrad_chat.parallel import data_parallel, use_threads
from tinygrad_chat.training.run import Run, resume_run


@pytest.fixture(autouse=True)
def every_batch_is_worth_sharing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(data_parallel, "WORTHWHILE", 0)
    before = use_threads()
    yield
    use_threads(before)


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in log(run) if "loss" in record]


@pytest.mark.profile("ci")
def test_threads_change_the_losses_by_rounding_only(start: Start):
    runs = [start(f"{threads} threads", threads=threads, batch_size=6, dropout=0.2, steps=30) for threads in (1, 2, 5)]
    for run in runs:
        finish(run)
    one, *others = map(losses, runs)
    assert [run.train_step.data_parallel and run.train_step.data_parallel.threads for run in runs] == [None, 2, 5]
    for other in others:
        assert other != one
        np.testing.assert_allclose(other, one, rtol=1e-4)


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_threads_within_micro_batches_change_nothing_but_rounding(start: Start, micro_batches: int):
    runs = [
        start(
            f"{threads} threads", threads=threads, grad_accumulation=micro_batches, batch_size=6, dropout=0.2, steps=3
        )
        for threads in (1, 2)
    ]
    for run in runs:
        finish(run)
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), rtol=1e-5)


def test_more_threads_than_cores_leave_products_to_the_cores():
    use_threads(1000)
    assert use_threads() <= (os.cpu_count() or 1)


@pytest.mark.profile("ci")
def test_a_run_of_two_threads_leaves_the_same_bytes_again_and_when_it_was_stopped(start: Start):
    once, again, stopped = (start(name, threads=2, steps=12) for name in ("once", "again", "stopped"))
    finish(once)
    finish(again)
    finish(stopped, stop_after=5)
    finish(resume_run(stopped.folder.path, {}))
    assert once.folder.log.read_bytes() == again.folder.log.read_bytes() == stopped.folder.log.read_bytes()


@pytest.mark.profile("ci")
@pytest.mark.parametrize("kernels", KERNEL_SETS)
def test_losses_of_200_steps_are_those_of_the_reference_ops_to_rounding(
    start: Start, kernels: str, monkeypatch: pytest.MonkeyPatch
):
    if kernels == "numba":  # so that blocks are used, not only what is compiled for small sizes
        monkeypatch.setattr(importlib.import_module("tinygrad_chat.kernels.numba.attention"), "SMALL", 0)
    settings = {
        "steps": 200,
        "threads": 1,
        "lr": 1e-3,
        "eval_every": 200,
        "log_every": 1,
        "context": 70,
        "batch_size": 2,
    }
    by_kernels, by_reference = start("kernels", kernels=kernels, **settings), start("reference", **settings)
    finish(by_kernels)
    with reference_ops():
        finish(by_reference)
    assert losses(by_kernels) != losses(by_reference)
    np.testing.assert_allclose(losses(by_kernels), losses(by_reference), rtol=1e-4)


@pytest.mark.profile("ci")
def test_one_thread_leaves_the_same_bytes_from_run_to_run(start: Start):
    once, again = (start(name, threads=1, steps=30) for name in ("once", "again"))
    finish(once)
    finish(again)
    assert once.folder.log.read_bytes() == again.folder.log.read_bytes()
