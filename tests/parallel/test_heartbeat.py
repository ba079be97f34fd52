"""A rank that hangs is found, though it gives signs of life."""

from __future__ import annotations

import gc
import queue
import time

import pytest

from tinygrad_chat.parallel.heartbeat import Heartbeat, Monitor, Progress


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # connections that processes close
@pytest.mark.parametrize("calls", [6, 7])
def test_the_rank_that_lets_the_others_wait_is_named(monkeypatch: pytest.MonkeyPatch, calls: int):
    monkeypatch.setattr("tinygrad_chat.parallel.heartbeat.BEAT", 0.02)
    failures: queue.SimpleQueue[str] = queue.SimpleQueue()
    began = time.perf_counter()
    monitor = Monitor(
        3,
        several_machines=False,
        progress=lambda: Progress(7, began),
        on_failure=failures.put,
        patience=0.3,
    )
    others = [
        Heartbeat(rank, monitor.meeting, progress=lambda calls=done: Progress(calls, None), on_end=lambda code: None)
        for rank, done in ((1, 7), (2, calls))
    ]
    monitor.wait_for_all()
    said = failures.get(timeout=10)
    assert "has let the others wait for 0.3 s: it hangs" in said
    assert said.startswith("rank 2 (process " if calls < 7 else "the ranks: ")
    for each in others:
        each.end()
    monitor.end(0)
    del monitor, others
    gc.collect()
