"""One update: what it drops by, where in its schedules it is, and what going back leaves."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_chat.training import update as update_module
from tinygrad_chat.training.run import Run

Start = Callable[..., Run]


def test_each_step_drops_by_numbers_of_its_own(start: Start):
    run, drawn = start(dropout=0.3), []
    for step in range(3):
        run.progress.step = step
        random = update_module._dropout(run)
        assert random is not None
        drawn.append(random.random())
    assert len(set(drawn)) == 3


def test_the_way_down_follows_the_time_that_was_used_and_the_way_up_does_not(start: Start):
    run = start(steps=100, warmup=4, minutes=1.0)
    found = []
    for step in (0, 3, 4, 60):
        run.progress.step = step
        found.append(update_module._position(run, 0.5))
    assert found == [0, 3, 50, 60]


def test_the_time_that_was_spent_stays_spent_when_a_run_goes_back(start: Start):
    run = start()
    before = run.state()
    run.progress.step, run.progress.seconds = 4, 2.5
    run.restore(before)
    assert (run.progress.step, run.progress.seconds) == (0, 2.5)
