"""The whole GPT, one number at a time: the same model as gpt.py, in lists of Values. Standard library only.

Read it from `token_logits`: a token becomes a vector; each block lets it look back at the tokens before it
(attention) and think for itself (feed-forward); the head turns the vector into one logit for each token of the
vocabulary. A weight matrix is a list of rows, and a layer is a list of dot products.

The weights are passed in under the names they have in gpt.py, so that either model can run on the other's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tinygrad_chat.autograd.fused import (
    cross_entropy,
    gelu,
    inverse_root_mean_square,
    matrix_vector,
    mean,
    softmax_average,
)
from tinygrad_chat.autograd.value import Value

GATE_REACH = 3.0
IGNORED = -1  # the target of positions that are left out of the loss

Vector = list[Value]


class ScalarCache:
    """Keys and values of the tokens read so far: for each layer a list of tokens, for each token a list of heads."""

    def __init__(self, layers: int) -> None:
        self.length = 0
        self.layers = layers
        self.begin_document()

    def begin_document(self) -> None:
        """Forget everything read: a new document begins, which does not see it."""
        self.keys: list[list[list[Vector]]] = [[] for _ in range(self.layers)]
        self.values: list[list[list[Vector]]] = [[] for _ in range(self.layers)]
        self.last_embedding: Vector | None = None
        self.document_start = self.length


class ScalarGPT:
    """A GPT of `options` (models/options.py) over `weights`: a list of Values, or of rows of Values, for each name.

    `vocabulary` is the number of the head's rows that stand for tokens, if others are padding.
    """

    def __init__(self, weights: Mapping[str, Any], options: Any, vocabulary: int | None = None) -> None:
        self.weights = weights
        self.options = options
        self.vocabulary = vocabulary
        self.pair_scales = options.pair_scales

    def loss(
        self,
        tokens: Sequence[int],
        targets: Sequence[int],
        token_count: int,
        weights: Sequence[float] | None = None,
    ) -> Value:
        """The sum of the targets' losses, weighted if `weights` are given, divided by the `token_count` of the batch
        that the sequence is part of."""
        losses = self.token_losses(tokens, targets)
        if weights is not None:
            losses = [loss * weight for loss, weight in zip(losses, weights, strict=True)]
        return mean(losses) * (len(losses) / token_count)

    def token_losses(self, tokens: Sequence[int], targets: Sequence[int]) -> Vector:
        """The loss, in nats, of each target given the tokens up to its position; 0 for an ignored target."""
        cache, losses = ScalarCache(self.options.layers), []
        for token, target in zip(tokens, targets, strict=True):
            logits = self.token_logits(token, cache)
            losses.append(Value(0.0) if target == IGNORED else cross_entropy(logits, target))
        return losses

    def token_logits(self, token: int, cache: ScalarCache) -> Vector:
        """Read one more token; return a logit for each token that may follow."""
        options = self.options
        if options.document_mask and token == options.document_token:
            cache.begin_document()
        position = cache.length - cache.document_start
        x = list(self.weights["token_embedding.weight"][token])
        if options.positions == "learned":
            x = add(x, self.weights["position_embedding.weight"][position])
        if options.embedding_norm:
            x = self.norm("embedding_norm", x)
        if options.smear:
            x = self.smear(x, cache)
        x0, middle = x, None
        for layer in range(options.layers):
            block = f"blocks.{layer}"
            if options.residual_scales:
                scales = self.weights["residual_scales"][layer], self.weights["embedding_scales"][layer]
                x = add(scaled(x, scales[0]), scaled(x0, scales[1]))
            x = add(x, self.attention(layer, self.norm(f"{block}.attention_norm", x), token, position, cache))
            x = add(x, self.feed_forward(f"{block}.feed_forward", self.norm(f"{block}.feed_forward_norm", x)))
            if options.backout and layer == options.middle:
                middle = x
        if middle is not None:
            x = add(x, scaled(middle, -self.weights["backout_scale"][0]))
        cache.length += 1
        head = "token_embedding" if options.tied else "head"
        logits = matrix_vector(self.weights[f"{head}.weight"][: self.vocabulary], self.norm("final_norm", x))
        cap = options.soft_cap
        return logits if cap is None else [(logit / cap).tanh() * cap for logit in logits]

    def smear(self, x: Vector, cache: ScalarCache) -> Vector:
        """Add a gated share of the previous token's embedding."""
        before, cache.last_embedding = cache.last_embedding, x
        if before is None:
            return x
        gate = matrix_vector(self.weights["smear_gate.weight"], x[: self.options.smear_channels])[0]
        return add(x, scaled(before, self.weights["smear_scale"][0] * sigmoid(gate)))

    def attention(self, layer: int, x: Vector, token: int, position: int, cache: ScalarCache) -> Vector:
        """Let each head ask (query), and average what the tokens so far give (value) by how well they match (key)."""
        options, part = self.options, f"blocks.{layer}.attention"
        D = options.head_channels
        queries, keys, values = (split(self.linear(f"{part}.{name}", x), D) for name in ("query", "key", "value"))
        if options.has_rotary(layer):
            queries, keys = (
                [self.turn(head, position, self.weights.get(f"{part}.{gain}")) for head in heads]
                for heads, gain in ((queries, "query_gain"), (keys, "key_gain"))
            )
        if options.has_value_embedding(layer):
            embeddings = split(self.weights[f"value_embeddings.{layer}.weight"][token], D)
            gates = matrix_vector(self.weights[f"{part}.value_gate.weight"], x[: options.gate_channels])
            values = [
                add(value, scaled(embedding, sigmoid(gate) * GATE_REACH))
                for value, embedding, gate in zip(values, embeddings, gates, strict=True)
            ]
        cache.keys[layer].append(keys)
        cache.values[layer].append(values)
        window = options.window_of(layer)
        start = 0 if window is None else max(0, position + 1 - window)
        seen_keys, seen_values = cache.keys[layer][start:], cache.values[layer][start:]
        shared = len(queries) // len(keys)  # query heads to each key/value head
        gathered: Vector = []
        for number, query in enumerate(queries):
            group = number // shared
            scores = matrix_vector([heads[group] for heads in seen_keys], query)
            columns = zip(*(heads[group] for heads in seen_values), strict=True)  # each: one channel of all tokens seen
            gathered += softmax_average([score / math.sqrt(D) for score in scores], list(columns))
        return self.linear(f"{part}.output", gathered)

    def turn(self, x: Vector, position: int, gain: Vector | None) -> Vector:
        """Rotary positions: rotate each pair (x[d], x[d + D / 2]) by an angle proportional to the position.

        The norm may come before or after, as a rotation preserves lengths; with a gain, both norm and gain come before.
        """
        half, size = len(x) // 2, self.options.qk_norm
        if gain is not None:
            x, size = multiplied(self.sized(x, size), gain), None
        angles = [position * self.options.rotary_base ** (-d / half) * self.pair_scales[d] for d in range(half)]
        pairs = list(zip(x[:half], x[half:], angles, strict=True))
        first = [a * math.cos(angle) - b * math.sin(angle) for a, b, angle in pairs]
        second = [a * math.sin(angle) + b * math.cos(angle) for a, b, angle in pairs]
        turned = first + second if size is None else self.sized(first + second, size)
        factor = self.options.attention_factor
        return turned if factor == 1 else [element * factor for element in turned]

    def sized(self, x: Vector, size: float) -> Vector:
        """Scale x to a root mean square of `size`."""
        return scaled(x, inverse_root_mean_square(x, self.options.norm_epsilon) * size)

    def feed_forward(self, part: str, x: Vector) -> Vector:
        """Project to a greater width, apply a non-linearity, and project back; in swiglu, a second vector of that
        width gates the first."""
        hidden = self.linear(f"{part}.expand", x)
        if self.options.activation == "swiglu":
            gates = self.linear(f"{part}.gate", x)
            activated = multiplied(hidden, [gate * sigmoid(gate) for gate in gates])
        else:
            activation = gelu if self.options.activation == "gelu" else squared_relu
            activated = [activation(h) for h in hidden]
        return self.linear(f"{part}.contract", activated)

    def linear(self, part: str, x: Vector) -> Vector:
        """The dot product of x with each row of the weight, plus the bias if there is one.

        A LoRA adapter adds its low-rank product: down to a few numbers, and up again.
        """
        out = matrix_vector(self.weights[f"{part}.weight"], x)
        bias, lora_a = (self.weights.get(f"{part}.{name}") for name in ("bias", "lora_a"))
        out = out if bias is None else add(out, bias)
        if lora_a is None:
            return out
        learned = matrix_vector(self.weights[f"{part}.lora_b"], matrix_vector(lora_a, x))
        return add(out, [element * self.options.lora_scale for element in learned])

    def norm(self, part: str, x: Vector) -> Vector:
        """Scale x to a fixed size (layernorm centres it first), then apply the learned gain and bias, if any."""
        if self.options.norm == "none":
            return x
        if self.options.norm == "layernorm":
            middle = mean(x)
            x = [element - middle for element in x]
        out = scaled(x, inverse_root_mean_square(x, self.options.norm_epsilon))
        if self.options.norm_gain:
            out = multiplied(out, self.weights[f"{part}.gain"])
        bias = self.weights.get(f"{part}.bias")
        return out if bias is None else add(out, bias)


def add(x: Sequence[Value], y: Sequence[Value]) -> Vector:
    """Add two vectors."""
    return [a + b for a, b in zip(x, y, strict=True)]


def multiplied(x: Sequence[Value], y: Sequence[Value]) -> Vector:
    """Multiply two vectors element by element."""
    return [a * b for a, b in zip(x, y, strict=True)]


def scaled(x: Sequence[Value], scale: Value) -> Vector:
    """Multiply a vector by a number."""
    return [element * scale for element in x]


def sigmoid(x: Value) -> Value:
    """1 / (1 + e^-x), as in `ops.sigmoid`: the exponent is never positive, so that exp does not overflow."""
    e = (x if x < 0 else -x).exp()
    return (e if x < 0 else 1) / (1 + e)


def squared_relu(x: Value) -> Value:
    """relu(x) squared."""
    return x.relu() ** 2


def split(x: Vector, width: int) -> list[Vector]:
    """Cut a vector into heads."""
    return [x[start : start + width] for start in range(0, len(x), width)]
