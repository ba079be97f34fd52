"""The base class of tensor models, and of a user's own model."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import no_grad, with_own_compute
from tinygrad_chat.backend import Compute
from tinygrad_chat.nn import Module
from tinygrad_chat.ops.cross_entropy import token_losses
from tinygrad_chat.tensor import Tensor


class NextTokenModel(Module):
    """A next-token model: a subclass with `vocabulary`, `context` and `logits` can be trained, saved and sampled.

    >>> from tinygrad_chat import nn
    >>> class Table(NextTokenModel):
    ...     def __init__(self, vocabulary):
    ...         self.vocabulary, self.context = vocabulary, 8
    ...         self.rows = nn.Embedding(vocabulary, vocabulary, random=np.random.default_rng(0))
    ...
    ...     def logits(self, tokens, **_):
    ...         return self.rows(tokens)
    >>> round(Table(5).loss(np.array([[1, 2]]), np.array([[2, 3]])).item(), 1)
    1.6
    """

    vocabulary: int
    """The number of tokens in the vocabulary, V."""
    context: int
    """The most tokens that the model sees at once."""
    soft_cap: float | None = None
    """The bound that a tanh keeps the logits within, if any."""
    overwrites_logits = False
    """Whether the loss may overwrite the logits with their gradient: only if nothing else reads them."""

    @functools.cached_property
    def compute(self) -> Compute:
        """The device and precision that the model computes with; by default the host's fastest kernels."""
        return Compute.choose("numpy")

    def logits(self, tokens: Any, *, random: np.random.Generator | None = None, offset: int = 0) -> Tensor:
        """Integer tokens (B, T) -> unnormalised log-probabilities (B, T, V) of each next token, before any soft cap.

        `random` is given in training, for dropout; `offset` is the index of the first row in the whole batch.
        """
        raise NotImplementedError(f"{type(self).__name__}: a model defines its logits: def logits(self, tokens, **_)")

    @with_own_compute
    def loss(
        self,
        tokens: Any,
        targets: Any,
        weights: Any = None,
        *,
        random: np.random.Generator | None = None,
        offset: int = 0,
        token_count: int | None = None,
    ) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T), each weighted if `weights` are given.

        `random` turns on dropout, as in training. `offset` and `token_count` are for a part of a larger batch
        (`LanguageModel.loss`).
        """
        logits = self.logits(tokens, random=random, offset=offset)
        backend = self.compute.backend
        targets = backend.whole_numbers(targets)
        weights = None if weights is None else backend.xp.asarray(weights, np.result_type(np.float32, logits.dtype))
        overwrite, cap = self.overwrites_logits, self.soft_cap
        options = {"soft_cap": cap, "token_count": token_count, "overwrite": overwrite}
        return ops.cross_entropy(logits, targets, weights=weights, **options)

    @with_own_compute
    def token_losses(self, tokens: Any, targets: Any) -> Any:
        """Cross-entropy in nats of each target (B, T) given tokens (B, T), as an array (B, T); 0 for an ignored
        target."""
        with no_grad():
            logits = self._at_full_precision(self.logits(tokens).data)
        return token_losses(logits, self.compute.backend.whole_numbers(targets), soft_cap=self.soft_cap)

    @with_own_compute
    def token_logits(self, tokens: Any) -> Any:
        """Unnormalised log-probabilities (B, T, V), as an array, of the token after each of tokens (B, T)."""
        with no_grad():
            return self._capped(self.logits(tokens).data)

    @with_own_compute
    def next_token_logits(self, tokens: Any, cache: Any = None) -> Any:
        """Logits (B, V) of the token after tokens (B, T). With a cache, pass only the tokens that it has not seen."""
        with no_grad():
            return self._capped(self._last_logits(tokens, cache))

    def new_cache(self, batch: int) -> Any:
        """An empty cache for `batch` sequences; None, as here, for a model that reads all tokens each time."""
        return None

    def _last_logits(self, tokens: Any, cache: Any) -> Any:
        return self.logits(tokens).data[:, -1]

    def _capped(self, logits: Any) -> Any:
        logits, cap = self._at_full_precision(logits), self.soft_cap
        return logits if cap is None else cap * self.compute.backend.xp.tanh(logits / cap)

    @staticmethod
    def _at_full_precision(logits: Any) -> Any:
        return logits.astype(np.float32) if logits.dtype.itemsize < 4 else logits
