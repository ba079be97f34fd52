"""Generation in `python -m bench gpu`: engines that agree take turns; a peer that does not is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import turns
from bench.gpu import generation
from bench.gpu.generation import CALL_BY_CALL
from bench.gpu.models import TRIAL
from tests.bench.test_gpu_stages import record_of

PEER = "torch eager"


class FakeEngines:
    """Engines with given losses and seconds; ours by whether it replays a graph."""

    def __init__(self, losses: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        self.names, self.losses, self.seconds = [turns.OURS, PEER], losses, seconds

    def ask(self, engine: str, request: dict[str, Any]) -> dict[str, Any] | None:
        if engine not in self.names:
            return None
        version = engine if request["graph"] else CALL_BY_CALL
        if request["what"] == "forced":
            return {"losses": [self.losses.get(version, 4.0)] * request["new"]}
        return {"seconds": self.seconds[version]}

    def drop(self, engine: str, reason: str) -> None:
        self.names.remove(engine)


def compared(tmp_path: Path, **losses: float) -> dict[str, float]:
    """Return the ratios to ours of the versions that were timed."""
    named = {"call": CALL_BY_CALL, "peer": PEER}
    seconds = {turns.OURS: 0.5, CALL_BY_CALL: 1.0, PEER: 2.0}
    engines: Any = FakeEngines({named[name]: loss for name, loss in losses.items()}, seconds)
    record = record_of("decode", tmp_path)
    generation._compare(generation._Generation("tiny", TRIAL["tiny"], "weights", engines), 3, record)
    rows = [line for line in record.lines() if line["what"] == "generation"]
    new = TRIAL["tiny"].options.context - generation.PROMPT
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(TRIAL["tiny"].batch * new / seconds[row["engine"]])
    return {row["engine"]: row["ours_over_this"] for row in rows}


def test_ours_is_compared_with_a_peer_and_with_itself_call_by_call(tmp_path: Path):
    assert compared(tmp_path) == {turns.OURS: 1.0, CALL_BY_CALL: 2.0, PEER: 4.0}


def test_a_peer_that_thinks_otherwise_of_the_same_tokens_is_not_timed(tmp_path: Path):
    assert compared(tmp_path, peer=4.1) == {turns.OURS: 1.0, CALL_BY_CALL: 2.0}


def test_nothing_is_timed_if_replayed_steps_think_otherwise_than_eager_ones(tmp_path: Path):
    with pytest.raises(turns.BenchmarkError, match="call by call within 2e-02 of ours"):
        compared(tmp_path, call=4.1)
    assert not [line for line in record_of("decode", tmp_path).lines() if line["what"] == "generation"]
