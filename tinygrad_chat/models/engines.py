"""The engines that run a model: on arrays, or one number at a time. A new one needs a file and a line here."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.models.scalar import ScalarModel

ENGINES: dict[str, Callable[..., LanguageModel]] = {"tensor": GPT, "scalar": ScalarModel}
"""By the value of --mode: (vocabulary, options, ...) -> the model."""
