"""One engine in a process of its own: reads a number of steps from each line of stdin, answers with a line of JSON.

    python -m bench.worker ENGINE CONFIGURATION

Between two lines it waits without using the processor, so that several workers can take turns.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from bench.configurations import BETAS, CLIP, CONFIGURATIONS, LEARNING_RATE, WEIGHT_DECAY, Configuration
from tinygrad_chat import GPT
from tinygrad_chat.backend import get_backend
from tinygrad_chat.optim import AdamW, clip_gradient

Step = Callable[[np.ndarray, np.ndarray], float]
"""One training step on tokens and targets (B, T): forward, backward, clip, AdamW -> loss"""


def _ours(configuration: Configuration) -> Step:
    model = GPT(configuration.vocabulary, configuration.options, backend=get_backend("numpy"))
    parameters = model.parameters()
    optimizer = AdamW(parameters, betas=BETAS, weight_decay=WEIGHT_DECAY)

    def step(tokens: np.ndarray, targets: np.ndarray) -> float:
        parameters.zero_gradient()
        loss = model.loss(tokens, targets)
        loss.backward()
        clip_gradient(parameters, CLIP)
        optimizer.step(LEARNING_RATE)
        return loss.item()

    return step


def _torch(configuration: Configuration, *, compiled: bool = False, bfloat16: bool = False) -> Step:
    import torch

    from bench.peers.torch_gpt import TorchGPT

    model = TorchGPT(configuration.vocabulary, configuration.options)
    model.load(GPT(configuration.vocabulary, configuration.options).parameters().state())
    optimizer = model.optimizer()
    forward = torch.compile(model) if compiled else model

    def step(tokens: np.ndarray, targets: np.ndarray) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = forward(torch.from_numpy(tokens), torch.from_numpy(targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


ENGINES: dict[str, Callable[[Configuration], Step]] = {
    "tinygrad_chat": _ours,
    "torch eager": _torch,
    "torch compile": lambda configuration: _torch(configuration, compiled=True),
    "torch bfloat16": lambda configuration: _torch(configuration, bfloat16=True),
}
"""NumPy has no product of bfloat16, so the last is a row of its own: less precise, and not to be compared with."""


def main(engine: str, name: str) -> None:
    """Run the steps that stdin asks for."""
    configuration = CONFIGURATIONS[name]
    step, number = ENGINES[engine](configuration), 0
    for line in sys.stdin:
        losses, seconds = [], []
        for _ in range(int(line)):
            tokens, targets = configuration.draw(number)
            began = time.perf_counter()
            losses.append(step(tokens, targets))
            seconds.append(time.perf_counter() - began)
            number += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"losses": losses, "seconds": seconds, "peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
