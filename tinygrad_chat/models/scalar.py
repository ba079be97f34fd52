"""The scalar engine behind the same protocol as the tensor engine: both share one loop, optimiser and sampler."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Value, recording
from tinygrad_chat.autograd.fused import matrix_vector
from tinygrad_chat.backend import Compute
from tinygrad_chat.errors import ConfigError, ShapeError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.scalar_gpt import ScalarCache, ScalarGPT
from tinygrad_chat.models.size import count_scaled_parameters
from tinygrad_chat.models.weights import checked_weights, draw_weights, frozen_names
from tinygrad_chat.nn import Parameters
from tinygrad_chat.ops.cross_entropy import count_targets
from tinygrad_chat.tensor import Tensor


class ScalarLoss:
    """A loss: the `value` at the end of a graph of Values."""

    def __init__(self, value: Value, leaves: list[Value], parameters: Parameters) -> None:
        self.value = value
        self._leaves = leaves
        self._parameters = parameters

    def backward(self) -> None:
        """Accumulate its gradient into the parameters' buffer."""
        self.value.backward()
        gradient = self._parameters.gradient
        gradient += np.array([leaf.grad for leaf in self._leaves[: gradient.size]])  # the others are frozen
        for leaf in self._leaves:
            leaf.grad = 0.0

    @property
    def data(self) -> float:
        """The number."""
        return self.value.data

    def item(self) -> float:
        """The number."""
        return self.data


class BatchCache:
    """A ScalarCache for each sequence of a batch."""

    def __init__(self, layers: int, batch: int) -> None:
        self._layers = layers
        self.rows = [ScalarCache(layers) for _ in range(batch)]

    def clear(self) -> None:
        """Forget everything."""
        self.rows = [ScalarCache(self._layers) for _ in self.rows]


class ScalarModel:
    """A ScalarGPT whose weights live in a flat buffer, as every model's do; here of float64.

    The Values are refreshed from the buffer before each use, and their gradients are accumulated into one after each
    backward pass. Names and initial weights come from GPT's parameter table, so both engines start with the same
    numbers.
    """

    def __init__(
        self,
        vocabulary: int,
        options: ModelOptions | None = None,
        *,
        compute: Compute | None = None,
        random: np.random.Generator | None = None,
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        options = options or ModelOptions()
        if options.dropout:
            raise ConfigError(f"--dropout: expected 0 in scalar mode, received {options.dropout}")
        self.vocabulary = vocabulary
        self.context = options.context
        if weights is None:
            weights = draw_weights(options, vocabulary, random)
        else:
            weights = checked_weights(options, vocabulary, weights)
        frozen = frozen_names(options, vocabulary)
        arrays = {name: np.array(array, np.float64) for name, array in weights.items()}
        self._frozen = {name: arrays[name] for name in arrays if name in frozen}
        trained = {name: Tensor(arrays[name]) for name in arrays if name not in frozen}
        self._parameters = Parameters(trained, self._frozen, compute=compute)
        self.compute = self._parameters.compute
        shapes = {name: arrays[name].shape for name in (*self._parameters, *self._frozen)}
        self._values = [Value(0.0) for name in shapes for _ in range(arrays[name].size)]  # trained ones first
        remaining = iter(self._values)
        values = {name: _shaped(remaining, shape) for name, shape in shapes.items()}
        self._gpt = ScalarGPT(values, options, vocabulary)

    def loss(
        self,
        tokens: Any,
        targets: Any,
        weights: Any = None,
        *,
        random: np.random.Generator | None = None,
        offset: int = 0,
        token_count: int | None = None,
    ) -> ScalarLoss:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T), each weighted if `weights` are given.

        There is no dropout. `offset` and `token_count` are for a part of a larger batch (`LanguageModel.loss`).
        """
        self._refresh()
        token_count = token_count or max(1, count_targets(targets))
        rows = [None] * len(tokens) if weights is None else weights.tolist()
        sequences = zip(tokens.tolist(), targets.tolist(), rows, strict=True)
        losses = [self._sequence_loss(*sequence, token_count) for sequence in sequences]
        return ScalarLoss(sum(losses[1:], losses[0]), self._values, self._parameters)

    def _sequence_loss(
        self, tokens: list[int], targets: list[int], weights: list[float] | None, token_count: int
    ) -> Value:
        loss = self._gpt.loss(tokens, targets, token_count, weights)
        return loss if recording() else Value(loss.data)  # drops the sequence's graph

    def token_losses(self, tokens: Any, targets: Any) -> np.ndarray:
        """Cross-entropy in nats of each target (B, T) given tokens (B, T), as an array (B, T); 0 for an ignored
        target."""
        self._refresh()
        return np.array(  # each sequence's graph is dropped before the next
            [
                [loss.data for loss in self._gpt.token_losses(*pair)]
                for pair in zip(tokens.tolist(), targets.tolist(), strict=True)
            ]
        )

    def token_logits(self, tokens: Any) -> np.ndarray:
        """Unnormalised log-probabilities (B, T, V), as an array, of the token after each of tokens (B, T)."""
        cache = self.new_cache(len(tokens))
        return np.stack([self.next_token_logits(column[:, None], cache) for column in np.asarray(tokens).T], axis=1)

    def next_token_logits(self, tokens: Any, cache: BatchCache | None = None) -> np.ndarray:
        """Logits (B, V) of the token after tokens (B, T). With a cache, pass only the tokens that it has not seen."""
        self._refresh()
        cache = cache or self.new_cache(len(tokens))
        logits = []
        for sequence, read in zip(tokens.tolist(), cache.rows, strict=True):
            if read.length + len(sequence) > self.context:
                raise ShapeError(
                    f"ScalarGPT: expected at most {self.context} tokens (the context), "
                    f"received {read.length + len(sequence)}"
                )
            last: list[Value] = []
            for token in sequence:
                last = self._gpt.token_logits(token, read)
                _forget_graph(read)
            logits.append([logit.data for logit in last])
        return np.array(logits)

    def new_cache(self, batch: int) -> BatchCache:
        """An empty cache for `batch` sequences."""
        return BatchCache(self._gpt.options.layers, batch)

    def parameters(self) -> Parameters:
        """The model's parameters, under the names and in the order of GPT's."""
        return self._parameters

    def _refresh(self) -> None:
        numbers = np.concatenate([self._parameters.data, *(array.ravel() for array in self._frozen.values())])
        for value, number in zip(self._values, numbers.tolist(), strict=True):
            value.data = number


def _forget_graph(cache: ScalarCache) -> None:
    """Detach the newest keys and values, so that a long text does not become one graph."""
    for tokens in (*cache.keys, *cache.values):
        tokens[-1] = [_bare(head) for head in tokens[-1]]
    cache.last_embedding = cache.last_embedding and _bare(cache.last_embedding)


def _bare(vector: list[Value]) -> list[Value]:
    return [Value(number.data) for number in vector]


def estimate_step_seconds(options: ModelOptions, *, vocabulary: int, tokens: int) -> float:
    """Estimate the seconds of a training step on `tokens` tokens, from a matrix-vector product timed on this machine
    now."""
    width = 64
    rows = [[Value(0.5) for _ in range(width)] for _ in range(width)]
    began = time.perf_counter()
    sum(matrix_vector(rows, rows[0]), Value(0.0)).backward()
    seconds_a_product = (time.perf_counter() - began) / width**2
    attended = options.context // 2 * options.query_width * 2  # half the context on average, as keys and as values
    products = count_scaled_parameters(options, vocabulary) + options.layers * attended
    return seconds_a_product * products * tokens


def _shaped(values: Iterator[Value], shape: tuple[int, ...]) -> Any:
    """Take the next values as a list or, for a matrix, as a list of rows."""
    if len(shape) == 1:
        return list(itertools.islice(values, shape[0]))
    return [_shaped(values, shape[1:]) for _ in range(shape[0])]
