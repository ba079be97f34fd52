"""A run that computes activations again is the same run, in less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.memory import least_step_memory
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run

Start = Callable[..., Run]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_writes_the_same_log_to_the_byte(start: Start, threads: int):
    logs = []
    for recompute in (False, True):
        run = start(f"recompute {recompute}", recompute=recompute, steps=4, threads=threads, batch_size=4, layers=2)
        assert getattr(run.model, "recompute", None) is recompute
        list(train(run))
        logs.append(run.folder.log.read_bytes())
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 0.1}, "--recompute: has no effect with --dropout 0.1"),
        ({"mode": "scalar"}, "--recompute: has no effect with --mode scalar"),
    ],
)
def test_it_is_refused_where_it_cannot_be(tiny: Callable[..., TrainingConfig], settings, message: str):
    with pytest.raises(ConfigError, match=f"^{message}"):
        tiny(recompute=True, **settings)


def test_a_step_is_counted_as_the_streams_and_one_block():
    options = ModelOptions(layers=10, width=64, heads=4)
    kept, again = (least_step_memory(options, 50, tokens=100, recompute=recompute) for recompute in (False, True))
    one = least_step_memory(ModelOptions(layers=1, width=64, heads=4), 50, tokens=100)
    assert again == one + 100 * 4 * 10 * 64
    assert kept > 3 * again
