"""Schedules: where they begin, peak and end, whatever the numbers."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.optim import SCHEDULES

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
ours = pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - {"nanochat"}))  # whose last step is test_muon.py's
falling = pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - {"constant", "nanochat"}))
warmups = st.integers(0, 20)
lengths = st.integers(22, 200)  # at least one step after the warm-up has its peak


@every_schedule
@given(warmup=st.integers(1, 20), steps=lengths)
def test_warm_up_starts_at_its_first_value_and_climbs_evenly_to_the_peak(name, warmup, steps):
    rate = SCHEDULES[name](peak=3.0, minimum=0.5, warmup=warmup, steps=steps)
    for step in range(warmup):
        assert rate(step) == pytest.approx(3.0 * (step + 1) / warmup)


@falling
@given(warmup=warmups, steps=lengths, warmdown=st.floats(0.1, 1.0))
def test_last_step_has_the_minimum_and_nothing_rises_after_the_warm_up(name, warmup, steps, warmdown):
    rate = SCHEDULES[name](peak=3.0, minimum=0.5, warmup=warmup, steps=steps, warmdown=warmdown)
    after = [rate(step) for step in range(max(warmup - 1, 0), steps)]
    assert after[0] == pytest.approx(3.0)
    assert after[-1] == pytest.approx(0.5)
    assert all(earlier >= later - 1e-12 for earlier, later in itertools.pairwise(after))


@given(warmup=warmups, steps=lengths)
def test_constant_stays_at_the_peak(warmup, steps):
    rate = SCHEDULES["constant"](peak=3.0, minimum=0.5, warmup=warmup, steps=steps)
    assert {rate(step) for step in range(warmup, steps)} == {3.0}


def test_on_the_way_down_the_shapes_differ_as_their_names_say():
    quarter = {
        name: SCHEDULES[name](peak=1.0, minimum=0.0, warmup=1, steps=9)(2)  # a quarter of the way
        for name in ("linear", "cosine", "1-sqrt")
    }
    assert quarter["linear"] == pytest.approx(0.75)
    assert quarter["cosine"] == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))
    assert quarter["1-sqrt"] == pytest.approx(0.5)


def test_warmdown_keeps_the_peak_until_its_share_begins():
    rate = SCHEDULES["linear"](peak=1.0, minimum=0.0, warmup=0, steps=11, warmdown=0.2)
    assert [round(rate(step), 3) for step in range(7, 11)] == [1.0, 1.0, 0.5, 0.0]


@ours
def test_one_step_and_steps_beyond_the_last_are_defined(name):
    assert SCHEDULES[name](peak=1.0, minimum=0.0, warmup=0, steps=1)(0) == 1.0
    rate = SCHEDULES[name](peak=1.0, minimum=0.2, warmup=2, steps=10)
    assert rate(50) == rate(9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "schedule: steps: expected at least 1, received 0"),
        ({"warmup": -1}, "schedule: warmup: expected at least 0, received -1"),
        ({"peak": math.nan}, "schedule: peak: expected a finite number, received nan"),
        ({"peak": -1.0}, "schedule: peak: expected at least 0, received -1.0"),
        ({"warmdown": 1.5}, "schedule: warmdown: expected at most 1, received 1.5"),
    ],
)
def test_what_makes_no_schedule_is_refused(name, wrong, message):
    if name == "constant" and "warmdown" in wrong:
        pytest.skip("it has no way down")
    with pytest.raises(ConfigError, match=f"^{message}$"):
        SCHEDULES[name](**{"peak": 1.0, "minimum": 0.1, "warmup": 1, "steps": 5, "warmdown": 0.5, **wrong})
