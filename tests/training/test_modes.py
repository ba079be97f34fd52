"""Both engines through the whole of training: each other's checkpoints, and AdamW's worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.backend import Compute
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.errors import ConfigError, UsageError
from tinygrad_chat.inference.generation import sample_texts
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.inference.options import SamplingOptions
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.training import refusals
from tinygrad_chat.training.build import choose_compute
from tinygrad_chat.training.events import Logged
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

Start = Callable[..., Run]
GOLDEN_TEXT = Path(__file__).parents[1] / "golden" / "text.txt"
modes = pytest.mark.parametrize(("mode", "other"), [("tensor", "scalar"), ("scalar", "tensor")])


def losses(run: Run) -> list[float]:
    records = [event.record for event in train(run) if isinstance(event, Logged)]
    return [record["loss"] for record in records if "loss" in record]


@modes
@pytest.mark.parametrize("model", ["bigram", "mini-gpt"])
def test_a_checkpoint_of_either_engine_samples_the_same_on_the_other(start: Start, mode: str, other: str, model: str):
    run = start(mode=mode, model=model, eval_tokens=5, width=4, context=4)
    losses(run)
    options = SamplingOptions(max_new_tokens=10, num_samples=2)
    texts = []
    for engine in (mode, other):
        loaded = load_model(run.folder.open_newest(SavedModel.load, say=print), mode=engine)
        texts.append(["".join(pieces) for pieces in sample_texts(loaded, run.tokenizer, options)])
    assert texts[0] == texts[1]


@pytest.mark.profile("ci")
@modes
def test_a_run_goes_on_with_the_other_engine(start: Start, mode: str, other: str):
    whole, stopped = (
        start("whole", mode=mode, eval_tokens=5, width=4, context=4),
        start("stopped", mode=mode, eval_tokens=5, width=4, context=4),
    )
    expected = losses(whole)
    list(train(stopped, should_stop=lambda: stopped.progress.step >= 3))
    resumed = losses(resume_run(stopped.folder.path, {"mode": other}))
    np.testing.assert_allclose(resumed, expected[3:], rtol=1e-4)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.profile("ci")) for seed in range(2, 6))])
def test_adamw_reaches_a_lower_loss_than_sgd_in_the_same_steps_each_at_its_best_rate(tmp_path: Path, seed: int):
    """On a bigram, whose rare tokens SGD moves rarely. (On very small GPTs SGD does better: docs/log.md.)"""
    shape: dict[str, Any] = {"mode": "scalar", "model": "bigram", "width": 4, "context": 8, "batch_size": 1}
    length: dict[str, Any] = {"steps": 120, "warmup": 2, "eval_every": 1000, "eval_tokens": 4, "log_every": 1}
    grid = {"adamw": (0.03, 0.1, 0.3), "sgd": (0.3, 1.0, 2.0)}

    def last_loss(optimizer: str, lr: float) -> float:
        choice = {"optimizer": optimizer, "lr": lr, "seed": seed, "data": str(GOLDEN_TEXT)}
        run = start_run(resolve({**shape, **length, **choice}), tmp_path / f"{optimizer}-{lr}")
        return float(np.mean(losses(run)[-30:]))

    found = {name: {lr: last_loss(name, lr) for lr in rates} for name, rates in grid.items()}
    assert min(found["adamw"].values()) < min(found["sgd"].values()) - 0.05, found


def test_a_scalar_model_whose_steps_take_minutes_wants_consent(tmp_path: Path):
    config = resolve({"mode": "scalar", "layers": 8, "width": 512, "batch_size": 32, "data": str(GOLDEN_TEXT)})
    with pytest.raises(
        UsageError, match=r"--mode scalar: a step of 256 tokens .* about \d+ minutes; .* --yes to continue"
    ):
        start_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_consent_lets_a_slow_model_train_and_a_resumed_one_wants_it_too(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refusals, "LONGEST_STEP", -1.0)  # every scalar step is too long
    with pytest.raises(UsageError, match="--yes"):
        start(mode="scalar", eval_tokens=5)
    run = start(eval_tokens=5)  # tensor steps are nobody's concern
    losses(run)
    with pytest.raises(UsageError, match="--yes"):
        resume_run(run.folder.path, {"mode": "scalar", "steps": 7})
    assert len(losses(resume_run(run.folder.path, {"mode": "scalar", "steps": 7}, confirmed=True))) == 1


def test_values_live_in_python_not_on_a_gpu(tiny: Callable[..., TrainingConfig], monkeypatch: pytest.MonkeyPatch):
    chosen: list[str] = []
    monkeypatch.setattr(Compute, "choose", lambda backend, *_: chosen.append(backend))
    for mode in ("tensor", "scalar"):
        choose_compute(tiny(mode=mode))
    assert chosen == ["auto", "numpy"]
    with pytest.raises(ConfigError, match="--mode scalar: expected --backend numpy or auto, received cupy"):
        resolve({"mode": "scalar", "backend": "cupy"})
