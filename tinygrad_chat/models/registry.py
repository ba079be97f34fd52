"""The models by name, and the engines that run them. A new model is a line here, or a file and a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.backend import Backend
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
    backend: Backend,
    random: np.random.Generator | None = None,
    weights: Mapping[str, Any] | None = None,
    mode: str = "tensor",
    dtype: Any = np.float32,
) -> LanguageModel:
    """Return a model called `name` (of MODELS) on the engine `mode` (of ENGINES), of `weights` or, without any, of
    new ones from `random`."""
    engine = ENGINES[mode]
    return engine(vocabulary, MODELS[name](options), backend=backend, random=random, weights=weights, dtype=dtype)
