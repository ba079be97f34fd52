"""GPT: one configurable decoder-only transformer (Radford et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import no_grad, recomputed, with_own_compute
from tinygrad_chat.backend import Compute, GraphCapture, array_module
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.models.base import NextTokenModel
from tinygrad_chat.models.blocks import Block, Rotate
from tinygrad_chat.models.captured_steps import CapturedSteps
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.weights import Weights, checked_weights, draw_weights, frozen_names, side_by_side
from tinygrad_chat.nn import AnyCache, KeyValueCache, QuantizedWeight, ResidualStream, dropper, write_columns
from tinygrad_chat.tensor import Tensor

Positions = slice | np.ndarray
"""The positions of tokens (B, T) in their sequences: a slice if all rows share them, else (B, T), negative for
padding; while a step is captured, in the device's memory."""


class GPT(NextTokenModel):
    """Token and position embedding, blocks, a final norm and a head over the vocabulary.

    Options add nanochat's extras: an embedding norm and smear, learned scales of the residual stream, value
    embeddings, and backout (docs/upstream_analysis.md, chapter 1).

    >>> model = GPT(vocabulary=65)
    >>> model.parameters().size
    804096
    """

    overwrites_logits = True
    recompute = False
    """Whether the backward pass recomputes each block instead of keeping its activations."""
    captures_steps = True
    """Whether the step that reads one more token of each row is captured as a CUDA graph, on a device, and replayed."""
    batch_invariant: bool
    """Whether a row's results are bit-identical alone and in a batch without padding: true with int8 weights."""

    def __init__(
        self,
        vocabulary: int,
        options: ModelOptions | None = None,
        *,
        compute: Compute | None = None,
        random: np.random.Generator | None = None,
        weights: Mapping[str, Any] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Build the model around `weights`, arrays by name, or around newly drawn ones.

        Weights already on the device and in the compute dtype are not copied, so a memory-mapped array is read only
        when it is used. A QuantizedWeight among them makes the model inference-only. Raises CheckpointError if the
        weights do not fit the options.
        """
        self.compute = compute or Compute.choose("numpy")
        self.options = options = options or ModelOptions()
        self.vocabulary = vocabulary
        self.context = options.context
        self.soft_cap = options.soft_cap
        self.dtype = np.dtype(dtype)
        compute_dtype = self.compute.array_dtype if self.dtype == np.float32 else self.dtype
        xp, drawn = self.compute.backend.xp, weights is None
        if weights is None:
            weights, kept_in = draw_weights(options, vocabulary, random), self.dtype
        else:
            weights, kept_in = checked_weights(options, vocabulary, weights), compute_dtype
        frozen = frozen_names(options, vocabulary)
        self.frozen = {name: xp.array(weights[name], compute_dtype) for name in weights if name in frozen}
        quantized = {name: each for name, each in weights.items() if isinstance(each, QuantizedWeight)}
        rest = {name: each for name, each in weights.items() if name not in frozen and name not in quantized}
        placed = side_by_side(rest, kept_in, self.compute.backend)
        trained = {name: Tensor(each) for name, each in placed.items()}
        parts = Weights(trained | self.frozen | quantized, options)
        self.token_embedding = parts.embedding("token_embedding")
        self.position_embedding = parts.embedding("position_embedding") if options.positions == "learned" else None
        self.embedding_norm = parts.norm("embedding_norm") if options.embedding_norm else None
        self.blocks = [Block(layer, options, parts.at(f"blocks.{layer}")) for layer in range(options.layers)]
        self.final_norm = parts.norm("final_norm")
        self.head = parts.linear("token_embedding" if options.tied else "head")
        self.value_embeddings = [
            parts.embedding(f"value_embeddings.{layer}") if options.has_value_embedding(layer) else None
            for layer in range(options.layers)
        ]
        self.smear_gate = parts.linear("smear_gate") if options.smear else None
        self.smear_scale = parts.get("smear_scale")
        self.residual_scales, self.embedding_scales = parts.get("residual_scales"), parts.get("embedding_scales")
        self.backout_scale = parts.get("backout_scale")
        self.batch_invariant = any(weight.numbers.dtype == np.int8 for weight in quantized.values())
        self._angles = []
        if options.positions == "rotary":
            angles = ops.rotary_angles(
                options.context, options.head_channels, base=options.rotary_base, scales=options.pair_scales
            )
            self._angles = [xp.asarray(angle * options.attention_factor, self.dtype) for angle in angles]
        if drawn and compute_dtype != self.dtype:
            self.parameters()  # keeps the weights as drawn, and computes with a rounded copy

    @with_own_compute
    def hidden(
        self,
        tokens: Any,
        *,
        random: np.random.Generator | None = None,
        offset: int = 0,
        cache: AnyCache | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> the head's input (B, T, C). Raises ShapeError for more tokens than the context."""
        tokens = self.compute.backend.whole_numbers(tokens)
        T, seen = tokens.shape[1], cache.length if cache else 0
        if seen + T > self.context:
            raise ShapeError(f"GPT: expected at most {self.context} tokens (the context), received {seen + T}")
        if cache:
            cache.make_room(T)
        positions, middle = cache.positions(T) if cache else slice(0, T), None
        embedded, starts = self._read(tokens, positions, cache)
        rotate, drop = self._rotation(positions), dropper(self.options.dropout, random, offset)
        x0 = drop(embedded)
        stream = ResidualStream(x0)
        for layer, block in enumerate(self.blocks):
            if self.residual_scales is not None:
                mixed = ops.scaled_sum(stream.x, x0, self.embedding_scales, self.residual_scales, layer=layer)
                stream = ResidualStream(mixed)
            embedding = self.value_embeddings[layer]
            value_embedding = embedding and embedding(tokens)
            if self.recompute and cache is None:
                stream = ResidualStream(_recomputed(block, stream.x, value_embedding, rotate, starts))
            else:
                block(stream, rotate, drop, value_embedding, starts, cache)
            if self.backout_scale is not None and layer == self.options.middle:
                middle = stream.x
        if middle is not None:
            stream = ResidualStream(ops.scaled_sum(stream.x, middle, self.backout_scale, subtract=True))
        if cache:
            cache.advance(T)
        return stream.read(self.final_norm)

    def _read(self, tokens: Any, positions: Positions, cache: AnyCache | None) -> tuple[Tensor, Any]:
        """Embed tokens (B, T) at `positions`. Return the embeddings and the index (B, T) of the first key that each
        token may see, None if it may see all."""
        xp, starts, in_document = self.compute.backend.xp, None, None
        if self.options.document_mask:
            in_order = isinstance(positions, slice)
            numbers = xp.arange(positions.start, positions.stop) if in_order else xp.asarray(positions.clip(0))
            starts = self._document_starts(tokens, numbers, cache)
            in_document = numbers - starts
        if cache and not isinstance(positions, slice):
            if in_document is None and cache.has_padding:
                in_document = xp.asarray(positions.clip(0))
            # A padding token sees only itself: a softmax needs at least one key.
            begins = xp.asarray(cache.starts[:, None] + positions.clip(max=0))
            starts = begins if starts is None else begins + starts
        return self._embed(tokens, positions, in_document, cache), starts

    def _document_starts(self, tokens: Any, positions: Any, cache: AnyCache | None) -> Any:
        """Return, for each of tokens (B, T), the position at which its document begins. Tokens before the first
        document token count as a document."""
        begins, before = tokens == self.options.document_token, cache.document_start if cache else 0
        starts = _running_maximum(self.compute.backend.xp.where(begins, positions, before))
        if cache:
            cache.document_start = starts[:, -1:]
        return starts

    def _embed(self, tokens: Any, positions: Positions, in_document: Any, cache: AnyCache | None) -> Tensor:
        """Embed tokens (B, T) at `positions` in their sequences or, if given, at `in_document` (B, T) instead."""
        x = self.token_embedding(tokens)
        x = x if isinstance(x, Tensor) else Tensor(x)  # a frozen embedding returns an array: start the graph here
        if self.position_embedding is not None:
            rows = self.position_embedding.weight
            if in_document is not None:
                x = x + self.position_embedding(in_document)
            elif isinstance(positions, slice):
                x = x + (rows if self.context == tokens.shape[1] else rows[positions])
            else:
                x = x + self.position_embedding(self.compute.backend.xp.asarray(positions))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        if self.smear_gate is not None:
            before = cache.last_embedding if cache else None
            if cache:
                cache.last_embedding = x.data[:, -1:]
            smeared = ops.smear(x, self.smear_gate.weight, self.smear_scale, before=before)
            if in_document is None:
                return smeared
            x = x + (smeared - x) * (in_document > 0)[..., None].astype(x.dtype)  # not for a document's first token
        return x

    def _rotation(self, positions: Positions) -> Rotate | None:
        if not self._angles:
            return None
        each = positions if isinstance(positions, slice) else self.compute.backend.xp.asarray(positions.ravel().clip(0))
        cosine, sine = (angle[each] for angle in self._angles)
        rms, epsilon = self.options.qk_norm, self.options.norm_epsilon

        def rotate(x: Tensor, gain: Tensor | None) -> Tensor:
            in_one_row = x if isinstance(positions, slice) else x.reshape(1, positions.size, x.shape[-1])
            turned = ops.rotary(in_one_row, gain, cosine=cosine, sine=sine, rms=rms, epsilon=epsilon)
            return turned if in_one_row is x else turned.reshape(*x.shape)

        return rotate

    def _project(self, x: Tensor) -> Tensor:
        """x (..., C) -> logits (..., V), without the head's padding rows."""
        head = self.head
        if len(head.weight) != self.vocabulary:
            head = type(head).of(weight=head.weight[: self.vocabulary], bias=None)
        return head(x)

    @with_own_compute
    def logits(self, tokens: Any, *, random: np.random.Generator | None = None, offset: int = 0) -> Tensor:
        """Tokens (B, T) -> unnormalised log-probabilities (B, T, V) of each next token, before any soft-cap."""
        return self._project(self.hidden(tokens, random=random, offset=offset))

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty key/value cache for `batch` sequences."""
        backend, sizes = self.compute.backend, (self.options.layers, batch, self.context, self.options.key_value_width)
        cache = KeyValueCache(*sizes, backend=backend, dtype=self.token_embedding.weight.dtype)
        capture = self._new_capture()
        if capture is not None:
            cache.captured = CapturedSteps(backend, capture, super().next_token_logits, most_rows=batch)
        return cache

    def _new_capture(self) -> GraphCapture | None:
        """Return what captures steps, or None where they stay eager. A replay reads from the device's memory which
        column of the cache comes next; a kernel can, while the reference slices by a number of the host's."""
        writes_columns_by_kernel = write_columns in self.compute.kernel_table
        return self.compute.backend.graph_capture() if self.captures_steps and writes_columns_by_kernel else None

    @with_own_compute
    def next_token_logits(self, tokens: Any, cache: AnyCache | None = None) -> Any:
        """Logits (B, V) of the token after tokens (B, T). With a cache, pass only the tokens that it has not seen: if
        that is one of each row, a device replays the step that it has captured."""
        if isinstance(cache, KeyValueCache) and cache.captured is not None and np.shape(tokens)[1] == 1:
            weights = next((tensor.data for _, tensor in self.named_parameters()), None)  # `parameters` moves them all
            logits = cache.captured.take(tokens, cache, weights)
            if logits is not None:
                return logits
        return super().next_token_logits(tokens, cache)

    @with_own_compute
    def restore(self, cache: KeyValueCache, tokens: Any, keys_and_values: Mapping[int, Any]) -> None:
        """Fill an empty cache as if it had read tokens (B, T), from the keys and values of caches that did, by row. A
        row that is not listed holds only padding."""
        tokens = self.compute.backend.whole_numbers(tokens)
        with no_grad():
            self._read(tokens, cache.positions(tokens.shape[1]), cache)
        cache.load(tokens.shape[1], keys_and_values)

    def _last_logits(self, tokens: Any, cache: AnyCache | None) -> Any:
        return self._project(self.hidden(tokens, cache=cache)[:, -1]).data


def _running_maximum(x: Any) -> Any:
    """Replace each number of x (B, T) by the largest so far in its row, in log2(T) rounds: each looks back twice as far
    as the last (Hillis and Steele's scan). CuPy has no `maximum.accumulate`."""
    back, xp = 1, array_module(x)
    while back < x.shape[1]:
        x[:, back:] = xp.maximum(x[:, back:], x[:, :-back])
        back *= 2
    return x


def _recomputed(block: Block, x: Tensor, value_embedding: Tensor | None, rotate: Rotate | None, starts: Any) -> Tensor:
    """Return the block's output, keeping no activations for the backward pass. No dropout, no cache."""

    def forward_block(x: Tensor, value_embedding: Tensor | None = None) -> Tensor:
        stream = ResidualStream(x)
        block(stream, rotate, lambda each: each, value_embedding, starts, None)
        return stream.x

    inputs = [x] if value_embedding is None else [x, value_embedding]
    return recomputed(forward_block, inputs, [weight for _, weight in block.named_parameters()])
