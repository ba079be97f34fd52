"""GPT: one configurable decoder-only transformer (Radford et al., 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import no_grad, with_own_compute
from tinygrad_chat.backend import Compute
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.models.blocks import Block, Rotate, add_and_normalize, joined, new_norm
from tinygrad_chat.models.initialisation import INITIALISATIONS
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.nn import Embedding, KeyValueCache, Linear, Module, Parameters, dropper
from tinygrad_chat.ops.cross_entropy import token_losses
from tinygrad_chat.tensor import Tensor


class GPT(Module):
    """Token and position embedding, blocks, a final norm and a head over the vocabulary.

    Options add what nanochat has beside: a norm and a smear of the embedding, learned scales of the stream, value
    embeddings, backout (docs/upstream_analysis.md, chapter 1).

    >>> model = GPT(vocabulary=65)
    >>> model.parameters().size
    804096
    """

    def __init__(
        self,
        vocabulary: int,
        options: ModelOptions | None = None,
        *,
        compute: Compute | None = None,
        random: np.random.Generator | None = None,
        dtype: Any = np.float32,
    ) -> None:
        options = options or ModelOptions()
        random = random or np.random.default_rng(0)
        self.compute = compute or Compute.choose("numpy")
        self.options = options
        self.vocabulary = vocabulary
        self.context = options.context
        C, rows, layers = options.width, options.padded(vocabulary), range(options.layers)
        initial = INITIALISATIONS[options.initialisation](options)
        self.token_embedding = Embedding(rows, C, random=random, draw=initial.embedding)
        self.position_embedding = (
            Embedding(options.context, C, random=random, draw=initial.embedding)
            if options.positions == "learned"
            else None
        )
        self.embedding_norm = new_norm(options) if options.embedding_norm else None
        self.blocks = [Block(layer, options, random, initial) for layer in layers]
        self.final_norm = new_norm(options)
        self.head = Linear(C, rows, bias=False, random=random, draw=initial.head)
        if options.tied:
            self.head.weight = self.token_embedding.weight
        self.value_embeddings = [
            Embedding(rows, options.key_value_width, random=random, draw=initial.value_embedding)
            if options.has_value_embedding(layer)
            else None
            for layer in layers
        ]
        self.smear_gate = self.smear_scale = None
        if options.smear:
            self.smear_gate = Linear(options.smear_channels, 1, bias=False, random=random, draw=initial.gate)
            self.smear_scale = Tensor(np.zeros(1, np.float32))
        self.residual_scales = self.embedding_scales = None
        if options.residual_scales:
            down = np.arange(options.layers) / max(options.layers - 1, 1)  # 0 in the first layer, 1 in the last
            self.residual_scales = Tensor((1.15 - 0.10 * down).astype(np.float32))
            self.embedding_scales = Tensor((0.20 - 0.15 * down).astype(np.float32))
        self.backout_scale = Tensor(np.full(1, 0.2, np.float32)) if options.backout else None
        self._parameters = Parameters(self, compute=self.compute, dtype=dtype)
        self._angles = []
        if options.positions == "rotary":
            angles = ops.rotary_angles(options.context, C // options.heads, base=options.rotary_base)
            self._angles = [self._parameters.backend.xp.asarray(angle, dtype) for angle in angles]

    @with_own_compute
    def hidden(
        self,
        tokens: Any,
        *,
        random: np.random.Generator | None = None,
        offset: int = 0,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> what the head reads (B, T, C). Raises ShapeError for more tokens than the context."""
        tokens = self._parameters.backend.xp.asarray(tokens)
        T, start = tokens.shape[1], cache.length if cache else 0
        if start + T > self.context:
            raise ShapeError(f"GPT: expected at most {self.context} tokens (the context), received {start + T}")
        drop = dropper(self.options.dropout, random, offset)
        here = slice(start, start + T)
        x = beginning = drop(self._embed(tokens, here, cache))
        rotate, answer, middle = self._rotation(here), None, None
        for layer, block in enumerate(self.blocks):
            if self.residual_scales is not None:
                x, answer = joined(x, answer), None
                x = ops.scaled_sum(x, beginning, self.embedding_scales, self.residual_scales, place=layer)
            values = self.value_embeddings[layer]
            x, answer = block(x, answer, rotate, drop, values and values(tokens), cache)
            if self.backout_scale is not None and layer == self.options.middle:
                x, answer = joined(x, answer), None
                middle = x
        if cache:
            cache.advance(T)
        if middle is not None:
            x, answer = joined(x, answer), None
            x = ops.scaled_sum(x, middle, self.backout_scale, subtract=True)
        return add_and_normalize(self.final_norm, x, answer)[1]

    def _embed(self, tokens: Any, here: slice, cache: KeyValueCache | None) -> Tensor:
        x = self.token_embedding(tokens)
        if self.position_embedding is not None:
            positions = self.position_embedding.weight
            x = x + (positions if self.context == tokens.shape[1] else positions[here])
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        if self.smear_gate is not None:
            before = cache.last_embedding if cache else None
            if cache:
                cache.last_embedding = x.data[:, -1:]
            x = ops.smear(x, self.smear_gate.weight, self.smear_scale, before=before)
        return x

    def _rotation(self, here: slice) -> Rotate:
        if not self._angles:
            return lambda x: x
        cosine, sine = (angle[here] for angle in self._angles)
        rms, epsilon = self.options.qk_norm, self.options.norm_epsilon
        return lambda x: ops.rotary(x, cosine=cosine, sine=sine, rms=rms, epsilon=epsilon)

    def _project(self, x: Tensor) -> Tensor:
        """x (..., C) -> logits (..., V): the head without the rows that only pad it."""
        if len(self.head.weight) == self.vocabulary:
            return self.head(x)
        return ops.linear(x, self.head.weight[: self.vocabulary])

    @with_own_compute
    def logits(self, tokens: Any) -> Tensor:
        """Tokens (B, T) -> unnormalised log-probabilities (B, T, V) of each next token, before any soft-cap."""
        return self._project(self.hidden(tokens))

    @with_own_compute
    def loss(
        self,
        tokens: Any,
        targets: Any,
        *,
        random: np.random.Generator | None = None,
        offset: int = 0,
        share: float = 1.0,
    ) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T). With `random`, as in training: dropout.

        `offset` and `share` are for a part of a larger batch (`LanguageModel.loss`). The logits are not kept:
        kernels leave their gradient in their place.
        """
        logits = self._project(self.hidden(tokens, random=random, offset=offset))
        targets = self._parameters.backend.xp.asarray(targets)
        return ops.cross_entropy(logits, targets, soft_cap=self.options.soft_cap, share=share, overwrite=True)

    @with_own_compute
    def token_losses(self, tokens: Any, targets: Any) -> Any:
        """The cross-entropy in nats of each of targets (B, T) given tokens (B, T), as an array (B, T)."""
        xp, dtype = self._parameters.backend.xp, self._parameters.data.dtype
        with no_grad():
            logits = self._project(self.hidden(tokens)).data.astype(dtype, copy=False)
        return token_losses(logits, xp.asarray(targets), soft_cap=self.options.soft_cap)

    @with_own_compute
    def next_token_logits(self, tokens: Any, cache: KeyValueCache | None = None) -> Any:
        """Logits (B, V) of the token after tokens (B, T). With a cache, tokens are only those that it has not seen."""
        with no_grad():
            last = self.hidden(tokens, cache=cache)[:, -1]
            logits = self._project(last).data.astype(self._parameters.data.dtype, copy=False)
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
