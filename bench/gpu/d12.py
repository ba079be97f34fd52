"""nanochat's d12, ours and nanochat's own from a checkout: tokens a second of gradient and update.

Each engine has the device to itself, one after another: together they might not fit.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.gpu.engines import LeftOutError, device_of
from bench.gpu.models import D12, D12_SETTINGS, D12_VOCABULARY, nanochat_config
from bench.gpu.stages import Record, Settings
from bench.peers import nanochat
from bench.upstream_worker import COMPILED, EAGER

ENGINES = (turns.OURS, COMPILED, EAGER)
WARMING, STEPS = 4, 8
SECONDS = 150.0  # for an answer; the first steps compile
TRIAL = {**D12_SETTINGS, "depth": 2, "context": 64, "batch_size": 2, "width": 64, "heads": 2}
TRIAL_VOCABULARY = 128


def measure_d12(settings: Settings, record: Record) -> None:
    """Compare training. Raises LeftOutError without a checkout, BenchmarkError where no engine works."""
    absent = nanochat.why_absent(settings.nanochat)
    if absent or settings.nanochat is None:
        raise LeftOutError(absent)
    chosen, vocabulary = (TRIAL, TRIAL_VOCABULARY) if settings.trial else (D12_SETTINGS, D12_VOCABULARY)
    config = nanochat_config(chosen, vocabulary)
    tokens = np.random.default_rng(0).integers(vocabulary, size=chosen["batch_size"] * (chosen["context"] + 1) * 64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.npz"
        np.savez(path, training=tokens, validation=tokens, bytes_per_token=np.ones(vocabulary, np.int64))
        request = {
            "checkout": str(Path(settings.nanochat).resolve()),
            "device": device_of(settings),
            "config": config.used_settings(),
            "vocabulary": vocabulary,
            "weights": None,
            "tokens": str(path),
        }
        measured = [engine for engine in ENGINES if _measure(engine, request, config.tokens_per_step, record)]
    if not measured:
        raise turns.BenchmarkError("no engine works; the record says why")


def _measure(engine: str, request: dict[str, Any], tokens: int, record: Record) -> bool:
    """Train some steps and say how fast; return whether it worked."""
    command = {engine: ("bench.upstream_worker", engine, json.dumps(request))}
    try:
        with turns.open_workers(command, own_sessions=False) as workers:
            worker = workers[engine]
            ready = worker.ask({"what": "ready", "amount": 0}, within=SECONDS)
            first = worker.ask({"what": "train", "amount": WARMING}, within=SECONDS)
            trained = worker.ask({"what": "train", "amount": STEPS}, within=SECONDS)
    except turns.BenchmarkError as error:
        record.say("engine failed", engine=engine, reason=str(error))
        return False
    found = {"attention": ready["attention"], "losses": first["losses"] + trained["losses"]}
    rate = tokens / statistics.median(trained["seconds"])
    record.say(
        "nanochat", configuration=D12, engine=engine, tokens_per_second=rate, seconds=trained["seconds"], **found
    )
    return True
