"""What a GPT is made of: attention, feed-forward, and the block that holds both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.models.initialisation import Initialisation
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.nn import ACTIVATIONS, KeyValueCache, Linear, Module, Norm, ResidualStream, make_norm
from tinygrad_chat.tensor import Tensor

Drop = Callable[[Tensor], Tensor]
Rotate = Callable[[Tensor], Tensor]

GATE_REACH = 3.0  # what the gate of a value embedding multiplies by at most (nanochat's)


def new_norm(options: ModelOptions) -> Norm:
    """Return a norm as the options have it."""
    return make_norm(
        options.norm, options.width, gain=options.norm_gain, bias=options.bias, epsilon=options.norm_epsilon
    )


class Attention(Module):
    """Let each position gather from those before it. x (B, T, C) -> (B, T, C)."""

    def __init__(self, layer: int, options: ModelOptions, random: np.random.Generator, initial: Initialisation) -> None:
        self.layer = layer
        self.heads = options.heads
        self.window = options.window_of(layer)
        C, shared_width, bias = options.width, options.key_value_width, options.bias
        self.query = Linear(C, C, bias=bias, random=random, draw=initial.read)
        self.key = Linear(C, shared_width, bias=bias, random=random, draw=initial.read)
        self.value = Linear(C, shared_width, bias=bias, random=random, draw=initial.read)
        self.output = Linear(C, C, bias=bias, random=random, draw=initial.write)
        self.value_gate = None
        if options.has_value_embedding(layer):
            gates = options.key_value_heads or options.heads
            self.value_gate = Linear(options.gate_channels, gates, bias=False, random=random, draw=initial.gate)

    def __call__(
        self, x: Tensor, rotate: Rotate, value_embedding: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        """Attend; with a cache, also to the tokens that it holds. `value_embedding` (B, T, G D) joins the values."""
        query, key, value = rotate(self.query(x)), rotate(self.key(x)), self.value(x)
        if self.value_gate is not None:
            logits = self.value_gate(x[..., : self.value_gate.weight.shape[1]])
            value = ops.gated_sum(value, value_embedding, logits, reach=GATE_REACH)
        if cache is not None:
            key, value = cache.extend(self.layer, key.data, value.data)
        return self.output(ops.attention(query, key, value, heads=self.heads, window=self.window))


class FeedForward(Module):
    """Let each position compute on its own: out to four times the width, a non-linearity, and back."""

    def __init__(self, options: ModelOptions, random: np.random.Generator, initial: Initialisation) -> None:
        C, bias = options.width, options.bias
        self.expand = Linear(C, 4 * C, bias=bias, random=random, draw=initial.expand)
        self.contract = Linear(4 * C, C, bias=bias, random=random, draw=initial.write)
        self.activation = ACTIVATIONS[options.activation]

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        return self.contract(self.activation(self.expand(x)))


class Block(Module):
    """Attention, then feed-forward; each reads the residual stream, normalised, and adds a branch to it."""

    def __init__(self, layer: int, options: ModelOptions, random: np.random.Generator, initial: Initialisation) -> None:
        self.attention_norm = new_norm(options)
        self.attention = Attention(layer, options, random, initial)
        self.feed_forward_norm = new_norm(options)
        self.feed_forward = FeedForward(options, random, initial)

    def __call__(
        self,
        stream: ResidualStream,
        rotate: Rotate,
        drop: Drop,
        value_embedding: Tensor | None,
        cache: KeyValueCache | None,
    ) -> None:
        """Take the stream (B, T, C) past this block."""
        stream.add(drop(self.attention(stream.read(self.attention_norm), rotate, value_embedding, cache)))
        stream.add(drop(self.feed_forward(stream.read(self.feed_forward_norm))))
