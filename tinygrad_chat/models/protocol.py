"""What training and sampling ask of a model, and nothing more."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tinygrad_chat.nn import Parameters


class Loss(Protocol):
    """A number at the end of a graph: a Tensor or a Value. `data` is the number, on a device one to wait for."""

    @property
    def data(self) -> Any:
        """The number, or an array of it."""
        ...

    def backward(self) -> None:
        """Add its gradient to that of every parameter."""
        ...

    def item(self) -> float:
        """The number."""
        ...


class Cache(Protocol):
    """What a model remembers of the tokens it has read, so as not to read them again."""

    def clear(self) -> None:
        """Forget everything."""
        ...


class Predictor(Protocol):
    """What evaluation asks of a model, or of threads that share one. `context` is how far back it looks."""

    context: int

    def token_losses(self, tokens: Any, targets: Any) -> Any:
        """The cross-entropy in nats of each of targets (B, T) given tokens (B, T), as an array (B, T); 0 where the
        target does not count."""
        ...


class LanguageModel(Predictor, Protocol):
    """A model of the next token, given those before it. V is its vocabulary."""

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
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T). With `random`, as in training: dropout.

        Targets of -1 do not count. With `weights` (B, T) each target's loss is multiplied by its own, and the mean is
        over as many as without. Of a part of a larger batch, `offset` is the index of its first row there, so that
        it drops what the whole would, and `token_count` the number of targets that count in the whole: what the sum of
        the losses is divided by, so that the parts' losses and gradients add up to the whole one's.
        """
        ...

    def token_logits(self, tokens: Any) -> Any:
        """Unnormalised log-probabilities (B, T, V), as an array, of the token after each of tokens (B, T)."""
        ...

    def next_token_logits(self, tokens: Any, cache: Any = None) -> Any:
        """Logits (B, V) of the token after tokens (B, T). With a cache, tokens are only those that it has not seen."""
        ...

    def new_cache(self, batch: int) -> Cache | None:
        """An empty cache for `batch` sequences, of the kind that `next_token_logits` takes; None for a model that has
        none and is given all tokens each time."""
        ...

    def parameters(self) -> Parameters:
        """The model's parameters."""
        ...
