"""The models that are measured or counted on a GPU, each with its batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.configurations import BETAS, CLIP, LEARNING_RATE, WEIGHT_DECAY, Configuration
from tinygrad_chat.backend import Compute, ProductChoices
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.scaling_laws import settings_of_depth
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.optim import AdamW
from tinygrad_chat.training.build import build_train_step
from tinygrad_chat.training.step import TrainStep

CONFIGURATIONS = {
    "mini-gpt": Configuration.of(12, 65, 64, 128, 4, 4),
    "S1": Configuration.of(64, 65, 256, 384, 6, 6),  # nanoGPT's for tiny Shakespeare
    "GPT-2 124M": Configuration.of(16, 50304, 1024, 768, 12, 12),
}
BATCHES = {"GPT-2 124M": (8, 16, 32)}  # of which each engine takes the one that it is fastest with
TRIAL = {"tiny": Configuration.of(4, 65, 32, 32, 2, 2)}  # without a GPU: does the measurement itself work?

D12 = "d12"  # nanochat's, with its vocabulary
D12_SETTINGS = {"depth": 12, "context": 2048, "batch_size": 16, "grad_accumulation": 1, "steps": 1000, "warmup": 40}
D12_VOCABULARY = 32_768


def nanochat_config(chosen: Mapping[str, Any], vocabulary: int) -> TrainingConfig:
    """Return the configuration of nanochat's model and optimiser at a depth, with what is `chosen` beside it."""
    settings = settings_of_depth(chosen, vocabulary)
    return TrainingConfig.of(**{**settings, **chosen, "model": "nanochat", "seed": 1})


def make_train_step(
    configuration: Configuration, compute: Compute, weights: Mapping[str, Any] | None = None
) -> TrainStep:
    """Return our training step of a GPT, with AdamW, from `weights` or freshly drawn ones."""
    model = GPT(configuration.vocabulary, configuration.options, compute=compute, weights=weights)
    optimizer = AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY)
    return TrainStep(model, optimizer, lambda step: LEARNING_RATE, clip=CLIP, graphs=True, products=ProductChoices())


def make_nanochat_step(config: TrainingConfig, compute: Compute, weights: Mapping[str, Any]) -> TrainStep:
    """Return our training step of nanochat's model, with its optimiser."""
    return build_train_step(config, GPT(D12_VOCABULARY, config.model, compute=compute, weights=weights))
