"""The GPT of `bench scalar` as a program of plain operators, which runs on any class of scalar values.

rmsnorm with gains, squared relu, learned positions, no bias: over weights by our names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinygrad_chat.models.options import ModelOptions

EPSILON = 1e-5

Vector = Sequence[Any]


class PlainGPT:
    """`weights` holds a list of values, or of rows of values, for each name."""

    def __init__(self, weights: Mapping[str, Any], options: ModelOptions) -> None:
        self.weights = weights
        self.options = options

    def loss(self, tokens: Sequence[int], targets: Sequence[int]) -> Any:
        """The mean surprise about the targets."""
        keys: list[list[Vector]] = [[] for _ in range(self.options.layers)]
        values: list[list[Vector]] = [[] for _ in range(self.options.layers)]
        surprises = []
        for position, (token, target) in enumerate(zip(tokens, targets, strict=True)):
            probabilities = _softmax(self._logits(token, position, keys, values))
            surprises.append(-probabilities[target].log())
        return (1 / len(surprises)) * sum(surprises)

    def _logits(self, token: int, position: int, keys: list[list[Vector]], values: list[list[Vector]]) -> Vector:
        w, D = self.weights, self.options.width // self.options.heads
        x = _add(w["token_embedding.weight"][token], w["position_embedding.weight"][position])
        for layer in range(self.options.layers):
            part = f"blocks.{layer}"
            y = _rmsnorm(x, w[f"{part}.attention_norm.gain"])
            query = _linear(y, w[f"{part}.attention.query.weight"])
            keys[layer].append(_linear(y, w[f"{part}.attention.key.weight"]))
            values[layer].append(_linear(y, w[f"{part}.attention.value.weight"]))
            gathered = []
            for start in range(0, len(x), D):
                head = slice(start, start + D)
                shares = _softmax([_dot(query[head], key[head]) / D**0.5 for key in keys[layer]])
                gathered += [
                    _dot(shares, [value[channel] for value in values[layer]]) for channel in range(start, start + D)
                ]
            x = _add(x, _linear(gathered, w[f"{part}.attention.output.weight"]))
            y = _linear(_rmsnorm(x, w[f"{part}.feed_forward_norm.gain"]), w[f"{part}.feed_forward.expand.weight"])
            x = _add(x, _linear([h.relu() ** 2 for h in y], w[f"{part}.feed_forward.contract.weight"]))
        return _linear(_rmsnorm(x, w["final_norm.gain"]), w["head.weight"])


def _add(x: Vector, y: Vector) -> Vector:
    return [a + b for a, b in zip(x, y, strict=True)]


def _dot(x: Vector, y: Vector) -> Any:
    return sum(a * b for a, b in zip(x, y, strict=True))


def _linear(x: Vector, rows: Sequence[Vector]) -> Vector:
    return [_dot(row, x) for row in rows]


def _softmax(logits: Vector) -> Vector:
    largest = max(logit.data for logit in logits)
    exponentials = [(logit - largest).exp() for logit in logits]
    total = sum(exponentials)
    return [e / total for e in exponentials]


def _rmsnorm(x: Vector, gain: Vector) -> Vector:
    scale = (sum(a * a for a in x) / len(x) + EPSILON) ** -0.5
    return [a * scale * g for a, g in zip(x, gain, strict=True)]
