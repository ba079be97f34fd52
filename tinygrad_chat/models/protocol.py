"""The interface that training and sampling expect of a model, and nothing more."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tinygrad_chat.nn import Parameters


class Loss(Protocol):
    """A scalar at the end of a graph: a Tensor or a Value. On a device, reading `data` may have to wait for it."""

    @property
    def data(self) -> Any:
        """The number, or an array that holds it."""
        ...

    def backward(self) -> None:
        """Add its gradient to that of every parameter."""
        ...

    def item(self) -> float:
        """The number."""
        ...


class Cache(Protocol):
    """State that a model keeps of the tokens it has read, so that it need not read them again."""

    def clear(self) -> None:
        """Forget everything."""
        ...


class Predictor(Protocol):
    """The interface that evaluation expects of a model, or of threads that share one. It sees `context` tokens."""

    context: int

    def token_losses(self, tokens: Any, targets: Any) -> Any:
        """Cross-entropy in nats of each target (B, T) given tokens (B, T), as an array (B, T); 0 for an ignored
        target."""
        ...


class LanguageModel(Predictor, Protocol):
    """A model of the next token given those before it. V is the size of its vocabulary."""

    vocabulary: int

    def loss(
        self,
        tokens: Any,
        targets: Any,
        weights: Any = None,
        *,
        random: np.random.Generator | None = None,
        offset: int = 0,
        token_count: int | None = None,
    ) -> Loss:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T). `random` turns on dropout, for training.

        Targets of -1 are ignored. `weights` (B, T) multiply each target's loss, but leave the mean's denominator
        unchanged. For a micro-batch, `offset` is the index of its first row in the whole batch, so that dropout is the
        same, and `token_count` is the number of counted targets in the whole batch. The sum of losses is divided by it,
        so that the losses and gradients of micro-batches add up to those of the whole.
        """
        ...

    def token_logits(self, tokens: Any) -> Any:
        """Unnormalised log-probabilities (B, T, V), as an array, of the token after each of tokens (B, T)."""
        ...

    def next_token_logits(self, tokens: Any, cache: Any = None) -> Any:
        """Logits (B, V) of the token after tokens (B, T). With a cache, pass only the tokens that it has not seen."""
        ...

    def new_cache(self, batch: int) -> Cache | None:
        """An empty cache for `batch` sequences, to pass to `next_token_logits`; None for a model that reads all tokens
        each time."""
        ...

    def parameters(self) -> Parameters:
        """The model's parameters."""
        ...
