"""Has training become slower than bench/results/step.json says? `pytest bench` asks; the usual tests do not.

Compared is the share that a step has in the rate of NumPy's own products, measured beside it, so that the machine may
be another one.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest

from bench import turns
from bench.configurations import CONFIGURATIONS
from bench.record import RESULTS
from bench.sgemm import share_of_sgemm

ROUNDS = 5
ROUND_SECONDS = 0.5
LEAST = 0.7  # of the recorded share


def _recorded(name: str) -> tuple[float, str]:
    """Return the recorded share of sgemm and the command that measured it."""
    result: dict[str, Any] = json.loads((RESULTS / "step.json").read_text())
    for row in result["rows"]:
        if (row["configuration"], row["engine"]) == (name, turns.OURS) and "share_of_sgemm" in row:
            return row["share_of_sgemm"], result["command"]
    raise AssertionError(f"bench/results/step.json has no share of sgemm for {name}; run: python -m bench step")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["shakespeare-cpu", "10M", "small-bpe"])
def test_training_keeps_its_share_of_the_machine(name: str) -> None:
    recorded, command = _recorded(name)
    configuration = CONFIGURATIONS[name]
    seconds, rates = [], []
    with turns.initial_weights(configuration) as weights:
        commands = {turns.OURS: ("bench.worker", turns.OURS, configuration.sizes, weights), "sgemm": ("bench.sgemm",)}
        with turns.open_workers(commands) as workers:
            once = statistics.median(workers[turns.OURS].ask(5)["seconds"])
            for turn in turns.take_turns(tuple(commands), ROUNDS, name):
                if turn == "sgemm":
                    rates.append(workers[turn].ask(None))
                else:
                    answer = workers[turn].ask(max(3, int(ROUND_SECONDS / once)))
                    seconds.append(statistics.median(answer["seconds"]))
    share = share_of_sgemm(configuration, statistics.median(seconds), statistics.median(rates))
    assert share >= LEAST * recorded, (
        f"{name}: expected at least {LEAST:.0%} of the recorded {recorded:.1%} of sgemm's rate, received {share:.1%}; "
        f"recorded by: {command}"
    )
