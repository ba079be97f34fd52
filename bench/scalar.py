"""Seconds of a scalar training step on microgpt's model, ours against Values written the textbook way.

1 layer, width 16, 4 heads, context 8, 27 tokens, rmsnorm, squared relu, untied. Both in one process, in turn: same
weights, same batches, SGD; their losses must agree to 1e-9 before anything is timed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.peers.textbook_value import TextbookGPT, TextbookValue
from bench.record import write_result
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.scalar import ScalarModel

NAME = "scalar"
VOCABULARY = 27
OPTIONS = ModelOptions(layers=1, heads=4, width=16, context=8, norm="rmsnorm", activation="squared_relu", tied=False)
LEARNING_RATE = 0.05
AGREEING = 3
TOLERANCE = 1e-9
MICROGPT = 0.40
"""Seconds a step of microgpt itself on another day's machine of the same kind, as noted beside the goal."""

Step = Callable[[list[int]], float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=15, help="steps of each that are timed")


def measure(arguments: argparse.Namespace) -> None:
    engines: dict[str, Step] = {"tinygrad_chat": _ours(), "textbook": _textbook()}
    losses = {name: [step(_draw(number)) for number in range(AGREEING)] for name, step in engines.items()}
    difference = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    if difference > TOLERANCE:
        raise SystemExit(f"losses differ by {difference:.1e}; nothing was timed")
    samples: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(AGREEING, AGREEING + arguments.rounds):
        for name, step in engines.items():
            gc.collect()
            began = time.perf_counter()
            step(_draw(number))
            samples[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(seconds) for name, seconds in samples.items()}
    ratio = statistics.median(b / a for a, b in zip(samples["tinygrad_chat"], samples["textbook"], strict=True))
    for name, seconds in medians.items():
        print(f"{name:<14} {1000 * seconds:7.1f} ms a step")
    print(
        f"textbook / ours: {ratio:.1f}; microgpt's {MICROGPT:.2f} s / ours: {MICROGPT / medians['tinygrad_chat']:.1f}"
    )
    measured: dict[str, Any] = {
        "loss_difference": difference,
        "textbook_over_ours": ratio,
        "seconds_a_step": medians,
        "samples": samples,
    }
    print(f"written: {write_result('scalar', f'python -m bench scalar --rounds {arguments.rounds}', measured)}")


def _draw(number: int) -> list[int]:
    return np.random.default_rng(number).integers(VOCABULARY, size=OPTIONS.context + 1).tolist()


def _ours() -> Step:
    model = ScalarModel(VOCABULARY, OPTIONS)
    parameters = model.parameters()

    def step(window: list[int]) -> float:
        parameters.zero_gradient()
        loss = model.loss(np.array([window[:-1]]), np.array([window[1:]]))
        loss.backward()
        parameters.data -= LEARNING_RATE * parameters.gradient
        return loss.item()

    return step


def _textbook() -> Step:
    state = ScalarModel(VOCABULARY, OPTIONS).parameters().state()
    weights: dict[str, Any] = {}
    leaves: list[TextbookValue] = []
    for name, array in state.items():
        values = [TextbookValue(number) for number in array.ravel().tolist()]
        leaves += values
        width = array.shape[-1]
        rows = [values[start : start + width] for start in range(0, len(values), width)]
        weights[name] = rows if array.ndim == 2 else rows[0]
    model = TextbookGPT(weights, OPTIONS)

    def step(window: list[int]) -> float:
        loss = model.loss(window[:-1], window[1:])
        loss.backward()
        for leaf in leaves:
            leaf.data -= LEARNING_RATE * leaf.grad
            leaf.grad = 0.0
        return loss.data

    return step
