"""GPT: one configurable decoder-only transformer (Radford et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import no_grad
from tinygrad_chat.backend import Backend, get_backend
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.nn import (
    ACTIVATIONS,
    Embedding,
    KeyValueCache,
    Linear,
    Module,
    Norm,
    Parameters,
    dropper,
    make_norm,
)
from tinygrad_chat.nn.layers import INITIAL_STD
from tinygrad_chat.tensor import Tensor

Drop = Callable[[Tensor], Tensor]
Rotate = Callable[[Tensor], Tensor]


class Attention(Module):
    """Let each position gather from those before it. x (B, T, C) -> (B, T, C)."""

    def __init__(self, layer: int, options: ModelOptions, random: np.random.Generator, residual_std: float) -> None:
        self.layer = layer
        self.heads = options.heads
        self.window = options.window
        C, shared_width, bias = options.width, options.key_value_width, options.bias
        self.query = Linear(C, C, bias=bias, random=random)
        self.key = Linear(C, shared_width, bias=bias, random=random)
        self.value = Linear(C, shared_width, bias=bias, random=random)
        self.output = Linear(C, C, bias=bias, random=random, std=residual_std)

    def __call__(self, x: Tensor, rotate: Rotate, cache: KeyValueCache | None) -> Tensor:
        """Attend; with a cache, also to the tokens that it holds."""
        query, key, value = rotate(self.query(x)), rotate(self.key(x)), self.value(x)
        if cache is not None:
            key, value = cache.extend(self.layer, key.data, value.data)
        return self.output(ops.attention(query, key, value, heads=self.heads, window=self.window))


class FeedForward(Module):
    """Let each position compute on its own: out to four times the width, a non-linearity, and back."""

    def __init__(self, options: ModelOptions, random: np.random.Generator, residual_std: float) -> None:
        C, bias = options.width, options.bias
        self.expand = Linear(C, 4 * C, bias=bias, random=random)
        self.contract = Linear(4 * C, C, bias=bias, random=random, std=residual_std)
        self.activation = ACTIVATIONS[options.activation]

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        return self.contract(self.activation(self.expand(x)))


class Block(Module):
    """Attention, then feed-forward; each reads the stream x, normalised, and its answer is added to the stream.

    An answer is added where the next norm reads the stream: there both are one op.
    """

    def __init__(self, layer: int, options: ModelOptions, random: np.random.Generator) -> None:
        # 2 L answers are added to the stream; this keeps their sum's size independent of the depth (GPT-2).
        residual_std = INITIAL_STD / math.sqrt(2 * options.layers)
        self.attention_norm = make_norm(options.norm, options.width, bias=options.bias)
        self.attention = Attention(layer, options, random, residual_std)
        self.feed_forward_norm = make_norm(options.norm, options.width, bias=options.bias)
        self.feed_forward = FeedForward(options, random, residual_std)

    def __call__(
        self, x: Tensor, answer: Tensor | None, rotate: Rotate, drop: Drop, cache: KeyValueCache | None
    ) -> tuple[Tensor, Tensor]:
        """Stream x (B, T, C) and the answer to add to it, None at first -> the same, behind this block."""
        x, read = _add_and_normalize(self.attention_norm, x, answer)
        x, read = self.feed_forward_norm.after_adding(x, drop(self.attention(read, rotate, cache)))
        return x, drop(self.feed_forward(read))


def _add_and_normalize(norm: Norm, x: Tensor, answer: Tensor | None) -> tuple[Tensor, Tensor]:
    return (x, norm(x)) if answer is None else norm.after_adding(x, answer)


class GPT(Module):
    """Token and position embedding, blocks, a final norm and a head over the vocabulary.

    >>> model = GPT(vocabulary=65)
    >>> model.parameters().size
    804096
    """

    def __init__(
        self,
        vocabulary: int,
        options: ModelOptions | None = None,
        *,
        random: np.random.Generator | None = None,
        backend: Backend | None = None,
        dtype: Any = np.float32,
    ) -> None:
        options = options or ModelOptions()
        random = random or np.random.default_rng(0)
        self.options = options
        self.vocabulary = vocabulary
        self.context = options.context
        C = options.width
        self.token_embedding = Embedding(vocabulary, C, random=random)
        self.position_embedding = (
            Embedding(options.context, C, random=random) if options.positions == "learned" else None
        )
        self.blocks = [Block(layer, options, random) for layer in range(options.layers)]
        self.final_norm = make_norm(options.norm, C, bias=options.bias)
        self.head = Linear(C, vocabulary, bias=False, random=random)
        if options.tied:
            self.head.weight = self.token_embedding.weight
        self._parameters = Parameters(self, backend=backend or get_backend("numpy"), dtype=dtype)
        angles = ops.rotary_angles(options.context, C // options.heads) if options.positions == "rotary" else ()
        self._angles = [self._parameters.backend.xp.asarray(angle, dtype) for angle in angles]

    def hidden(
        self,
        tokens: Any,
        *,
        random: np.random.Generator | None = None,
        first_row: int = 0,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> what the head reads (B, T, C). Raises ShapeError for more tokens than the context."""
        tokens = self._parameters.backend.xp.asarray(tokens)
        T, start = tokens.shape[1], cache.length if cache else 0
        if start + T > self.context:
            raise ShapeError(f"GPT: expected at most {self.context} tokens (the context), received {start + T}")
        drop = dropper(self.options.dropout, random, first_row)
        here = slice(start, start + T)
        x = self.token_embedding(tokens)
        if self.position_embedding is not None:
            positions = self.position_embedding.weight
            x = x + (positions if self.context == T else positions[here])
        x = drop(x)
        rotate = self._rotation(here)
        answer = None
        for block in self.blocks:
            x, answer = block(x, answer, rotate, drop, cache)
        if cache:
            cache.advance(T)
        return _add_and_normalize(self.final_norm, x, answer)[1]

    def _rotation(self, here: slice) -> Rotate:
        if not self._angles:
            return lambda x: x
        cosine, sine = (angle[here] for angle in self._angles)
        return lambda x: ops.rotary(x, cosine=cosine, sine=sine)

    def logits(self, tokens: Any) -> Tensor:
        """Tokens (B, T) -> unnormalised log-probabilities (B, T, V) of each next token, before any soft-cap."""
        return self.head(self.hidden(tokens))

    def loss(
        self,
        tokens: Any,
        targets: Any,
        *,
        random: np.random.Generator | None = None,
        first_row: int = 0,
        share: float = 1.0,
    ) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T). With `random`, as in training: dropout.

        `first_row` and `share` are for a part of a larger batch (`LanguageModel.loss`). The logits are not kept:
        kernels leave their gradient in their place.
        """
        logits = self.head(self.hidden(tokens, random=random, first_row=first_row))
        targets = self._parameters.backend.xp.asarray(targets)
        return ops.cross_entropy(logits, targets, soft_cap=self.options.soft_cap, share=share, overwrite=True)

    def next_token_logits(self, tokens: Any, cache: KeyValueCache | None = None) -> Any:
        """Logits (B, V) of the token after tokens (B, T). With a cache, tokens are only those that it has not seen."""
        with no_grad():
            last = self.hidden(tokens, cache=cache)[:, -1]
            logits = self.head(last).data.astype(self._parameters.data.dtype, copy=False)
        cap = self.options.soft_cap
        return logits if cap is None else cap * self._parameters.backend.xp.tanh(logits / cap)

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty key/value cache for `batch` sequences."""
        options, parameters = self.options, self._parameters
        return KeyValueCache(
            options.layers,
            batch,
            options.context,
            options.key_value_width,
            backend=parameters.backend,
            dtype=parameters.compute_dtype,
        )

    def parameters(self) -> Parameters:
        """The model's parameters, named as its parts are: blocks.0.attention.query.weight."""
        return self._parameters
