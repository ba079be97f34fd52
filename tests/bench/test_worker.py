"""Our engines, as the measurements run them: in a process, asked by lines of JSON."""

from __future__ import annotations

import math

import pytest

from bench.configurations import CONFIGURATIONS
from bench.turns import OURS, PLAIN, initial_weights, open_workers


@pytest.mark.profile("ci")
def test_our_engines_take_the_same_steps():
    configuration = CONFIGURATIONS["micro"]
    with initial_weights(configuration) as weights:
        commands = {engine: ("bench.worker", engine, configuration.sizes, weights) for engine in (OURS, PLAIN)}
        with open_workers(commands) as workers:
            losses = {engine: workers[engine].ask(3)["losses"] for engine in commands}
    assert losses[PLAIN] == pytest.approx(losses[OURS], rel=1e-5)
    assert losses[OURS][0] == pytest.approx(math.log(27), rel=0.05)
