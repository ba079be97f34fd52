"""The models by name. A new one is a file and a line here."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat.backend import Backend
from tinygrad_chat.models.bigram import Bigram
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.protocol import LanguageModel

MODELS: dict[str, type[Bigram] | type[GPT]] = {"bigram": Bigram, "mini-gpt": GPT}


def build_model(
    name: str,
    vocabulary: int,
    options: ModelOptions,
    *,
    random: np.random.Generator,
    backend: Backend,
    dtype: Any = np.float32,
) -> LanguageModel:
    """Return a new model of the kind `name` (a key of MODELS) with weights drawn from `random`."""
    return MODELS[name](vocabulary, options, random=random, backend=backend, dtype=dtype)
