"""nanoGPT's model for tiny Shakespeare, S1, trained until its validation loss is the 1.47 that nanoGPT's README gives.

The seconds are those of the steps and of the evaluations, without checkpoints and logs. The validation loss is over the
whole last tenth of the text, which is harder than nanoGPT's random batches of it.
"""

from __future__ import annotations

import argparse
import inspect
import time
from pathlib import Path
from typing import Any

from bench.gpu.engines import LeftOutError, backend_of
from bench.gpu.stages import Record, Settings
from tinygrad_chat.backend import Compute
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import random_batch
from tinygrad_chat.text.tokenizers.characters import CharacterTokenizer
from tinygrad_chat.training.build import build_train_step
from tinygrad_chat.training.evaluation import evaluate

TARGET = 1.47
MODEL: dict[str, Any] = {"layers": 6, "heads": 6, "width": 384, "context": 256, "dropout": 0.2, "batch_size": 64}
RATES = {"steps": 5000, "warmup": 100, "lr": 1e-3, "min_lr": 1e-4, "lr_schedule": "cosine"}
S1 = {"model": "mini-gpt", **MODEL, **RATES, "beta2": 0.99, "weight_decay": 0.1, "clip": 1.0}
EVALUATED_EVERY = 250
TRIAL_TARGET = 3.6
TRIAL = {**S1, "layers": 2, "heads": 2, "width": 32, "context": 32, "batch_size": 8, "steps": 120, "warmup": 10}
TRIAL_EVALUATED_EVERY = 20
TRIAL_TEXT = inspect.getsource(argparse)[:20_000]
EVALUATION_BATCH = 16_384  # tokens


def train_to_target(settings: Settings, record: Record) -> None:
    """Train and say how long it took. Raises LeftOutError without the text."""
    if settings.text is None and not settings.trial:
        raise LeftOutError("no text: name tiny Shakespeare's with --text FILE")
    text = TRIAL_TEXT if settings.text is None else Path(settings.text).read_text(encoding="utf-8")
    tokenizer = CharacterTokenizer(set(text))
    tokens = tokenizer.encode(text)
    training, validation = tokens[: len(tokens) * 9 // 10], tokens[len(tokens) * 9 // 10 :]
    config = TrainingConfig.of(**(TRIAL if settings.trial else S1))
    target, every = (TRIAL_TARGET, TRIAL_EVALUATED_EVERY) if settings.trial else (TARGET, EVALUATED_EVERY)
    seed, shape = config.run.seed, {"batch_size": config.data.batch_size, "context": config.model.context}
    compute = Compute.choose(backend_of(settings))
    model = GPT(tokenizer.size, config.model, compute=compute, random=rng(seed, "initialisation"))
    step, losses = build_train_step(config, model), []
    in_steps, began = 0.0, time.perf_counter()
    for number in range(config.schedule.steps):
        begun = time.perf_counter()
        batch = random_batch(training, **shape, random=rng(seed, "batches", number))
        step(batch, number, random=rng(seed, "dropout", number))
        in_steps += time.perf_counter() - begun
        if (number + 1) % every:
            continue
        begun = time.perf_counter()
        compute.backend.synchronize()
        in_steps += time.perf_counter() - begun
        batch_size = EVALUATION_BATCH // config.model.context
        losses.append(evaluate(model, validation, tokenizer.bytes_per_token(), batch_size=batch_size).loss)
        found: dict[str, Any] = {
            "steps": number + 1,
            "val_loss": losses[-1],
            "seconds": time.perf_counter() - began,
            "seconds_of_steps": in_steps,
        }
        record.say("evaluated", **found)
        if losses[-1] <= target:
            record.say("reached", target=target, **found)
            return
    record.say("not reached", target=target, best=min(losses))
