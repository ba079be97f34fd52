"""One engine that runs single ops forward and backward, in a process of its own.

    python -m bench.operations ENGINE SIZES WEIGHTS

Told {"op": name, "results": path} it runs the op once and leaves its value and gradients, or the updated weights, in
that file. Told {"op": name, "seconds": S} it runs it for about S seconds and answers with the medians of its runs,
forward and backward.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bench.configurations import BETAS, CLIP, LEARNING_RATE, WEIGHT_DECAY, Configuration
from bench.peers.weights import renamed
from bench.turns import OURS, serve
from bench.worker import Weights, describe_threads
from tinygrad_chat import ops
from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend.allocation import keep_freed_memory

UPDATE = "clip + AdamW"
NODES = "1,000 nodes"
"""A chain of ops that do nothing: what the graph alone costs."""
OPS = (
    "linear",
    "attention",
    "layernorm",
    "rmsnorm",
    "gelu",
    "squared_relu",
    "swiglu",
    "embedding",
    "cross_entropy",
    "softmax",
    "rotary",
    UPDATE,
    NODES,
)
UPDATES = 3  # compared
LEAST, MOST = 3, 1000  # runs that are timed


class Updater(NamedTuple):
    """AdamW on all weights: `prepare` sets the gradient, `step` clips it and updates, `weights` tells the result."""

    prepare: Callable[[], None]
    step: Callable[[], None]
    weights: Callable[[], dict[str, np.ndarray]]


def inputs_of(name: str, configuration: Configuration) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """Return an op's inputs and options as a GPT of `configuration` calls it: random, and the same in every process."""
    B, V, options = configuration.batch, configuration.vocabulary, configuration.options
    T, C, H = options.context, options.width, options.heads
    random = np.random.default_rng(OPS.index(name))

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    x, tokens = normal(B, T, C), random.integers(V, size=(B, T))
    if name == NODES:
        return (normal(1, 1),), {}
    if name == "linear":
        return (x, normal(options.feed_forward_channels, C) / np.float32(C**0.5)), {}
    if name == "attention":
        return (x, normal(B, T, C), normal(B, T, C)), {"heads": H}
    if name in ("layernorm", "rmsnorm"):
        return (x, normal(C)), {}
    if name in ("gelu", "squared_relu"):
        return (normal(B, T, options.feed_forward_channels),), {}
    if name == "swiglu":
        return (normal(B, T, options.feed_forward_channels), normal(B, T, options.feed_forward_channels)), {}
    if name == "embedding":
        return (normal(V, C), tokens), {}
    if name == "cross_entropy":
        return (normal(B, T, V), tokens), {"overwrite": True}
    if name == "softmax":
        return (normal(B, H, T, T),), {}
    cosine, sine = (angle.astype(np.float32) for angle in ops.rotary_angles(T, C // H))
    return (x,), {"cosine": cosine, "sine": sine}


def _ours(name: str, inputs: tuple[np.ndarray, ...], options: dict[str, Any]) -> Callable[[], tuple[Any, Any]]:
    """Return a function that runs an op forward -> its result and its backward rule."""
    from tinygrad_chat import Tensor

    if name == NODES:
        return _our_chain(Tensor(inputs[0]))
    nodes = [Tensor(array) if array.dtype.kind == "f" else array for array in inputs]

    def forward() -> tuple[np.ndarray, Any]:
        out = getattr(ops, name)(*nodes, **options)
        return out.data, out.rule

    return forward


@differentiable
def _same(x: Any) -> Any:
    """x."""
    return x, lambda d_out: (d_out,)


def _our_chain(x: Any) -> Callable[[], tuple[Any, Any]]:
    def forward() -> tuple[np.ndarray, Any]:
        out = x
        for _ in range(1000):
            out = _same(out)

        def backward(d_out: np.ndarray) -> tuple[Any]:
            x.grad = None
            out.backward(d_out)
            return (x.grad,)

        return out.data, backward

    return forward


def _our_updater(configuration: Configuration, gradient: Weights) -> Updater:
    from tinygrad_chat import GPT
    from tinygrad_chat.optim import AdamW, clip_gradient

    parameters = GPT(configuration.vocabulary, configuration.options).parameters()
    optimizer = AdamW(parameters, betas=BETAS, weight_decay=WEIGHT_DECAY)

    def prepare() -> None:
        for name in parameters:
            parameters[name].grad[...] = gradient[name]

    def step() -> None:
        clip_gradient(parameters, CLIP)
        optimizer.step(LEARNING_RATE)

    return Updater(prepare, step, lambda: renamed(parameters.state()))


class Operations:
    """What `engine` does with each op at the sizes of `configuration`."""

    def __init__(self, engine: str, configuration: Configuration, weights: Weights) -> None:
        self._configuration = configuration
        random = np.random.default_rng(0)
        gradient = {name: random.standard_normal(array.shape, np.float32) for name, array in weights.items()}
        if engine == OURS:
            self._forward_of, self._constant = _ours, np.asarray
            self._updater = _our_updater(configuration, gradient)
        else:
            import torch

            from bench.peers import torch_ops

            self._forward_of, self._constant = torch_ops.run, torch.from_numpy
            self._updater = Updater(*torch_ops.update(configuration, weights, gradient))

    def results(self, name: str) -> dict[str, np.ndarray]:
        """Return an op's value and the gradients of its inputs, or the weights after some updates."""
        if name == UPDATE:
            for _ in range(UPDATES):
                self._updater.prepare()
                self._updater.step()
            return self._updater.weights()
        inputs, options = inputs_of(name, self._configuration)
        out, rule = self._forward_of(name, inputs, options)()
        value = np.asarray(out).copy()
        gradients = [np.asarray(d_input) for d_input in rule(self._d_out(value)) if d_input is not None]
        return {"value": value, **{f"gradient {number}": array for number, array in enumerate(gradients)}}

    def seconds(self, name: str, limit: float) -> dict[str, list[float]]:
        """Return the seconds of runs that take about `limit` seconds together, forward and backward."""
        runs = self._update_runs() if name == UPDATE else self._op_runs(name)
        next(runs)  # the first one pays for what is loaded, compiled or allocated
        forward, backward = [], []
        began = time.perf_counter()
        while len(forward) < LEAST or (time.perf_counter() - began < limit and len(forward) < MOST):
            first, second = next(runs)
            forward.append(first)
            backward.append(second)
        return {"forward": forward, "backward": backward}

    def _op_runs(self, name: str) -> Iterator[tuple[float, float]]:
        drawn, options = inputs_of(name, self._configuration)
        d_out = None
        while True:
            inputs = tuple(array.copy() for array in drawn)  # an op may leave a gradient in its input's place
            forward = self._forward_of(name, inputs, options)
            began = time.perf_counter()
            out, rule = forward()
            between = time.perf_counter()
            d_out = self._d_out(np.asarray(out)) if d_out is None else d_out
            resumed = time.perf_counter()
            rule(d_out)
            yield between - began, time.perf_counter() - resumed

    def _update_runs(self) -> Iterator[tuple[float, float]]:
        while True:
            self._updater.prepare()
            began = time.perf_counter()
            self._updater.step()
            yield time.perf_counter() - began, 0.0

    def _d_out(self, value: np.ndarray) -> Any:
        """Return the gradient that a value gets: 1 for a scalar, else random, the same in every process."""
        random = np.random.default_rng(1)
        d_out = random.standard_normal(value.shape, np.float32) if value.ndim else np.ones((), np.float32)
        return self._constant(d_out)


def main(engine: str, sizes: str, weights: str) -> None:
    """Run what stdin asks for."""
    keep_freed_memory()
    operations = Operations(engine, Configuration.parse(sizes), dict(np.load(weights)))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "results" in request:
            np.savez(request["results"], **operations.results(request["op"]))  # pyright: ignore[reportArgumentType]
            return {"threads": describe_threads()}
        seconds = operations.seconds(request["op"], request["seconds"])
        return {way: statistics.median(each) for way, each in seconds.items()}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
