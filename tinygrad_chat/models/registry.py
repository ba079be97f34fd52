"""The models by name, and the engines that run them. A new model is a line here, or a file and a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_chat.backend import Compute
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.models.scalar import ScalarModel


def bigram(options: ModelOptions) -> ModelOptions:
    """Guess the next token from the last one alone: a GPT without blocks and positions, so embedding, norm, head.

    It is the baseline that every other model must beat.
    """
    return dataclasses.replace(options, layers=0, positions="none")


def mini_gpt(options: ModelOptions) -> ModelOptions:
    """Look back over the whole context: a GPT as the options say."""
    return options


def nanochat(options: ModelOptions) -> ModelOptions:
    """karpathy/nanochat's GPT: a GPT as the options say, which begin as models/nanochat.py has them."""
    return options


MODELS: dict[str, Callable[[ModelOptions], ModelOptions]] = {
    "bigram": bigram,
    "mini-gpt": mini_gpt,
    "nanochat": nanochat,
}
"""What each model makes of the options."""

ENGINES: dict[str, Callable[..., LanguageModel]] = {"tensor": GPT, "scalar": ScalarModel}
"""What runs a model of some options."""


def build_model(
    name: str,
    vocabulary: int,
    options: ModelOptions,
    *,
    compute: Compute,
    random: np.random.Generator,
    mode: str = "tensor",
    dtype: Any = np.float32,
) -> LanguageModel:
    """Return a new model called `name` (of MODELS) on the engine `mode` (of ENGINES), with weights from `random`."""
    return ENGINES[mode](vocabulary, MODELS[name](options), compute=compute, random=random, dtype=dtype)
