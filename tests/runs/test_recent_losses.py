"""The running mean and variance of the losses: plain at first, then of the last ones above all."""

from __future__ import annotations

import numpy as np
import pytest

from tinygrad_chat.runs.recent_losses import WINDOW, RecentLosses


def test_over_the_first_losses_they_are_the_plain_mean_and_variance():
    losses = np.random.default_rng(0).normal(3, 0.5, WINDOW)
    recent = RecentLosses()
    for loss in losses:
        assert recent.z_score(100.0) == 0  # too few to judge by
        recent.add(float(loss))
    assert (recent.mean, recent.variance) == pytest.approx((losses.mean(), losses.var()))
    assert recent.z_score(losses.mean() + 2 * losses.std()) == pytest.approx(2)


def test_a_lasting_change_becomes_the_new_level():
    recent = RecentLosses()
    for loss in [2.0] * WINDOW + [5.0] * (20 * WINDOW):
        recent.add(loss)
    assert recent.mean == pytest.approx(5.0)
    assert recent.variance == pytest.approx(0.0, abs=1e-6)
