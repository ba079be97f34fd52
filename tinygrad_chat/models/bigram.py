"""Bigram: the next token guessed from the last one alone. The baseline that every other model must beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import no_grad
from tinygrad_chat.backend import Backend
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.nn import Embedding, KeyValueCache, Module, Parameters
from tinygrad_chat.tensor import Tensor


class Bigram(Module):
    """A table (V, V) whose row of a token holds the logits of the token after it."""

    def __init__(
        self,
        vocabulary: int,
        options: ModelOptions | None = None,
        *,
        random: np.random.Generator | None = None,
        backend: Backend | None = None,
        dtype: Any = np.float32,
    ) -> None:
        self.vocabulary = vocabulary
        self.context = (options or ModelOptions()).context
        self.table = Embedding(vocabulary, vocabulary, random=random or np.random.default_rng(0))
        self._parameters = Parameters(self, backend=backend, dtype=dtype)

    def loss(self, tokens: Any, targets: Any, *, random: np.random.Generator | None = None) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T)."""
        return ops.cross_entropy(self.table(tokens), targets)

    def next_token_logits(self, tokens: Any, cache: KeyValueCache | None = None) -> Any:
        """Logits (B, V) of the token after tokens (B, T)."""
        with no_grad():
            return self.table(tokens[:, -1]).data

    def new_cache(self, batch: int) -> None:
        """None: there is nothing to remember."""
        return

    def parameters(self) -> Parameters:
        """The table."""
        return self._parameters
