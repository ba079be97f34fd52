"""The scalar engine and the GPT as a textbook writes them: a node for every + and *, a closure for its backward, and a
search for the order. The yardstick for the fused scalar engine; the same model, the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinygrad_chat.models.options import ModelOptions

EPSILON = 1e-5


class TextbookValue:
    """A number, its children, and a function that passes its gradient on to them."""

    def __init__(self, data: float, children: tuple[TextbookValue, ...] = ()) -> None:
        self.data = data
        self.grad = 0.0
        self._children = children
        self._pass_on: Callable[[], None] = lambda: None

    def __add__(self, other: TextbookValue | float) -> TextbookValue:
        other = other if isinstance(other, TextbookValue) else TextbookValue(other)
        out = TextbookValue(self.data + other.data, (self, other))

        def pass_on() -> None:
            self.grad += out.grad
            other.grad += out.grad

        out._pass_on = pass_on
        return out

    def __mul__(self, other: TextbookValue | float) -> TextbookValue:
        other = other if isinstance(other, TextbookValue) else TextbookValue(other)
        out = TextbookValue(self.data * other.data, (self, other))

        def pass_on() -> None:
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        out._pass_on = pass_on
        return out

    def __pow__(self, exponent: float) -> TextbookValue:
        return self._of_one(self.data**exponent, exponent * self.data ** (exponent - 1))

    def exp(self) -> TextbookValue:
        """e to the power of this number."""
        return self._of_one(math.exp(self.data), math.exp(self.data))

    def log(self) -> TextbookValue:
        """The natural logarithm."""
        return self._of_one(math.log(self.data), 1 / self.data)

    def relu(self) -> TextbookValue:
        """This number where it is positive, else 0."""
        return self._of_one(max(0.0, self.data), float(self.data > 0))

    def _of_one(self, data: float, slope: float) -> TextbookValue:
        out = TextbookValue(data, (self,))

        def pass_on() -> None:
            self.grad += slope * out.grad

        out._pass_on = pass_on
        return out

    def __truediv__(self, other: TextbookValue | float) -> TextbookValue:
        return self * other**-1

    def __neg__(self) -> TextbookValue:
        return self * -1.0

    def __sub__(self, other: TextbookValue | float) -> TextbookValue:
        return self + other * -1.0

    def backward(self) -> None:
        """Find an order in which every node comes after all that it was computed from, and walk it backwards."""
        order: list[TextbookValue] = []
        seen: set[TextbookValue] = set()
        stack: list[tuple[TextbookValue, bool]] = [(self, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(child, False) for child in node._children]
        self.grad = 1.0
        for node in reversed(order):
            node._pass_on()


Vector = Sequence[TextbookValue]


class TextbookGPT:
    """rmsnorm, squared relu, learned positions, no bias: the model of `bench scalar`, over weights by our names."""

    def __init__(self, weights: Mapping[str, Any], options: ModelOptions) -> None:
        self.weights = weights
        self.options = options

    def loss(self, tokens: Sequence[int], targets: Sequence[int]) -> TextbookValue:
        """The mean surprise about the targets."""
        keys: list[list[Vector]] = [[] for _ in range(self.options.layers)]
        values: list[list[Vector]] = [[] for _ in range(self.options.layers)]
        surprises = []
        for position, (token, target) in enumerate(zip(tokens, targets, strict=True)):
            probabilities = _softmax(self._logits(token, position, keys, values))
            surprises.append(-probabilities[target].log())
        return _sum(surprises) / len(surprises)

    def _logits(self, token: int, position: int, keys: list[list[Vector]], values: list[list[Vector]]) -> Vector:
        w, D = self.weights, self.options.head_channels
        x = [
            a + b
            for a, b in zip(w["token_embedding.weight"][token], w["position_embedding.weight"][position], strict=True)
        ]
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
            x = [a + b for a, b in zip(x, _linear(gathered, w[f"{part}.attention.output.weight"]), strict=True)]
            y = _linear(_rmsnorm(x, w[f"{part}.feed_forward_norm.gain"]), w[f"{part}.feed_forward.expand.weight"])
            y = _linear([h.relu() ** 2 for h in y], w[f"{part}.feed_forward.contract.weight"])
            x = [a + b for a, b in zip(x, y, strict=True)]
        return _linear(_rmsnorm(x, w["final_norm.gain"]), w["head.weight"])


def _sum(terms: Vector) -> TextbookValue:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _dot(x: Vector, y: Vector) -> TextbookValue:
    return _sum([a * b for a, b in zip(x, y, strict=True)])


def _linear(x: Vector, rows: Sequence[Vector]) -> Vector:
    return [_dot(row, x) for row in rows]


def _softmax(logits: Vector) -> Vector:
    largest = max(logit.data for logit in logits)
    exponentials = [(logit - largest).exp() for logit in logits]
    total = _sum(exponentials)
    return [e / total for e in exponentials]


def _rmsnorm(x: Vector, gain: Vector) -> Vector:
    scale = (_sum([a * a for a in x]) / len(x) + EPSILON) ** -0.5
    return [a * scale * g for a, g in zip(x, gain, strict=True)]
