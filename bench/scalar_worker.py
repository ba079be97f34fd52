"""One scalar engine in a process of its own: told a number of training steps, it answers with their losses and seconds.

    python -m bench.scalar_worker ENGINE WEIGHTS

WEIGHTS is a file of the weights to begin with. Our `Value` lets Python's garbage collector run less often; the textbook
forms run with it as Python sets it, and one of them once more as we do.
"""

from __future__ import annotations

import gc

PYTHONS_OWN = gc.get_threshold()  # before anything of ours is imported
# ruff: noqa: E402

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.peers.plain_gpt import PlainGPT
from bench.peers.textbook_value import ClosureValue, LocalGradientValue
from bench.turns import serve
from tinygrad_chat.autograd.value import Value
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.scalar import ScalarModel

FUSED, PLAIN = "fused nodes", "plain operators"
CLOSURES, LOCAL_GRADIENTS = "textbook, closures", "textbook, local gradients"
SAME_COLLECTOR = "textbook, local gradients, our collector"
VALUES: dict[str, type[Any]] = {
    PLAIN: Value,
    CLOSURES: ClosureValue,
    LOCAL_GRADIENTS: LocalGradientValue,
    SAME_COLLECTOR: LocalGradientValue,
}
ENGINES = (FUSED, *VALUES)
VOCABULARY = 27
OPTIONS = ModelOptions(layers=1, heads=4, width=16, context=8, norm="rmsnorm", activation="squared_relu", tied=False)
LEARNING_RATE = 0.05

Step = Callable[[list[int]], tuple[float, list[float]]]
"""One step of gradient descent on a window of tokens -> the loss, and every gradient."""


def _fused(state: dict[str, np.ndarray]) -> Step:
    model = ScalarModel(VOCABULARY, OPTIONS)
    parameters = model.parameters()
    parameters.load(state)

    def step(window: list[int]) -> tuple[float, list[float]]:
        parameters.zero_gradient()
        loss = model.loss(np.array([window[:-1]]), np.array([window[1:]]))
        loss.backward()
        parameters.data -= LEARNING_RATE * parameters.gradient
        return loss.item(), parameters.gradient.tolist()

    return step


def _plain(state: dict[str, np.ndarray], kind: type[Any]) -> Step:
    weights: dict[str, Any] = {}
    leaves: list[Any] = []
    for name, array in state.items():
        values = [kind(number) for number in array.ravel().tolist()]
        leaves += values
        width = array.shape[-1]
        rows = [values[start : start + width] for start in range(0, len(values), width)]
        weights[name] = rows if array.ndim == 2 else rows[0]
    model = PlainGPT(weights, OPTIONS)

    def step(window: list[int]) -> tuple[float, list[float]]:
        loss = model.loss(window[:-1], window[1:])
        loss.backward()
        gradient = [leaf.grad for leaf in leaves]
        for leaf in leaves:
            leaf.data -= LEARNING_RATE * leaf.grad
            leaf.grad = 0.0
        return loss.data, gradient

    return step


def main() -> None:
    """Answer {"steps": N} with the seconds a step, the losses and the last gradient."""
    engine, file = sys.argv[1:]
    with np.load(file) as state:
        weights = dict(state)
    step = _fused(weights) if engine == FUSED else _plain(weights, VALUES[engine])
    if engine in (CLOSURES, LOCAL_GRADIENTS):
        gc.set_threshold(*PYTHONS_OWN)
    taken = 0

    def answer(request: Any) -> Any:
        nonlocal taken
        losses: list[float] = []
        gradient: list[float] = []
        began = time.perf_counter()
        for _ in range(request["steps"]):
            window = np.random.default_rng(taken).integers(VOCABULARY, size=OPTIONS.context + 1).tolist()
            loss, gradient = step(window)
            losses.append(loss)
            taken += 1
        seconds = (time.perf_counter() - began) / request["steps"]
        return {"seconds": seconds, "losses": losses, "gradient": gradient}

    serve(answer)


if __name__ == "__main__":
    main()
