"""The parts of a GPT: attention, feed-forward, and the block that holds both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_chat import ops
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.weights import Weights
from tinygrad_chat.nn import ACTIVATIONS, AnyCache, Module, QuantizedLinears, ResidualStream, apply_to_one_input
from tinygrad_chat.tensor import Tensor

Drop = Callable[[Tensor], Tensor]
Rotate = Callable[[Tensor, Tensor | None], Tensor]

GATE_REACH = 3.0  # the largest factor of a value embedding's gate (nanochat's)


class Attention(Module):
    """Let each position gather from those before it. x (B, T, C) -> (B, T, C)."""

    def __init__(self, layer: int, options: ModelOptions, weights: Weights) -> None:
        self.layer = layer
        self.heads = options.heads
        self.window = options.window_of(layer)
        self.has_rotary = options.has_rotary(layer)
        self.query = weights.linear("query")
        self.key = weights.linear("key")
        self.value = weights.linear("value")
        self.output = weights.linear("output")
        self.quantized = QuantizedLinears.of(self.query, self.key, self.value)
        self.query_gain, self.key_gain = weights.get("query_gain"), weights.get("key_gain")
        self.value_gate = weights.linear("value_gate") if options.has_value_embedding(layer) else None

    def __call__(
        self,
        x: Tensor,
        rotate: Rotate | None,
        value_embedding: Tensor | None,
        document_starts: Any,
        cache: AnyCache | None,
    ) -> Tensor:
        """Attend to these tokens and those in the cache, if any. `value_embedding` (B, T, G D) is added to the values;
        `document_starts` (B, T), if given, are those of `ops.attention`."""
        gate, layers = self.value_gate, (self.query, self.key, self.value)
        # Before the other layers, so that the gradient of these few channels is added to theirs, and not the reverse.
        logits = None if gate is None else gate(x[..., : gate.weight.shape[1]])
        query, key, value = self.quantized(x) if self.quantized else apply_to_one_input(x, *layers)
        if rotate is not None and self.has_rotary:
            query, key = rotate(query, self.query_gain), rotate(key, self.key_gain)
        if logits is not None:
            value = ops.gated_sum(value, value_embedding, logits, reach=GATE_REACH)
        seen = {"window": self.window, "document_starts": document_starts}
        if cache is not None:
            key, value = cache.extend(self.layer, key.data, value.data)
            seen["length"] = cache.filled
        return self.output(ops.attention(query, key, value, heads=self.heads, **seen))


class FeedForward(Module):
    """Let each position compute by itself: project to a greater width, apply a non-linearity, and project back.

    The non-linearity takes one number or, with a gate, two.
    """

    def __init__(self, options: ModelOptions, weights: Weights) -> None:
        self.gate = weights.linear("gate") if options.activation == "swiglu" else None
        self.expand = weights.linear("expand")
        self.contract = weights.linear("contract")
        self.activation = ACTIVATIONS[options.activation]
        self.quantized = QuantizedLinears.of(self.gate, self.expand)

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        if self.gate is None:
            return self.contract(self.activation(self.expand(x)))
        both = self.quantized(x) if self.quantized else apply_to_one_input(x, self.gate, self.expand)
        return self.contract(self.activation(*both))


class Block(Module):
    """Attention, then feed-forward; each reads the normalised residual stream and adds its output to it."""

    def __init__(self, layer: int, options: ModelOptions, weights: Weights) -> None:
        self.attention_norm = weights.norm("attention_norm")
        self.attention = Attention(layer, options, weights.at("attention"))
        self.feed_forward_norm = weights.norm("feed_forward_norm")
        self.feed_forward = FeedForward(options, weights.at("feed_forward"))

    def __call__(
        self,
        stream: ResidualStream,
        rotate: Rotate | None,
        drop: Drop,
        value_embedding: Tensor | None,
        document_starts: Any,
        cache: AnyCache | None,
    ) -> None:
        """Add both branches to the stream (B, T, C)."""
        normalised = stream.read(self.attention_norm)
        stream.add(drop(self.attention(normalised, rotate, value_embedding, document_starts, cache)))
        stream.add(drop(self.feed_forward(stream.read(self.feed_forward_norm))))
