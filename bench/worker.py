"""One engine in a process of its own: told a number of training steps, it answers with their losses and seconds.

    python -m bench.worker ENGINE SIZES WEIGHTS [keep-memory]

SIZES are B,V,T,C,H,L; WEIGHTS is a file of the weights that a peer begins with. Ours draws the same ones, and keeps the
memory of freed arrays as it does for its users; with `keep-memory` a peer gets that setting too.
"""

from __future__ import annotations

import importlib
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import threadpoolctl

from bench.configurations import BETAS, CLIP, LEARNING_RATE, WEIGHT_DECAY, Configuration
from bench.turns import OURS, PLAIN, serve

Weights = Mapping[str, np.ndarray]
Step = Callable[[np.ndarray, np.ndarray], float]
"""One training step on tokens and targets (B, T): forward, backward, clip, AdamW -> loss"""


@dataclass(frozen=True)
class Engine:
    """What runs a step: the `library` that it needs first, and how a step is made of a configuration and weights.

    `tolerance` is how far its losses may lie from ours, relative, after 20 steps that each depend on the last.
    """

    library: str
    make: Callable[[Configuration, Weights], Step]
    tolerance: float = 2e-3


def _ours(configuration: Configuration, kernels: str = "auto") -> Step:
    from tinygrad_chat import GPT
    from tinygrad_chat.backend import Compute
    from tinygrad_chat.optim import AdamW
    from tinygrad_chat.parallel import make_data_parallel, use_threads
    from tinygrad_chat.training.step import TrainStep

    model = GPT(configuration.vocabulary, configuration.options, compute=Compute.choose("numpy", kernels))
    train_step = TrainStep(
        model,
        AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY),
        lambda step: LEARNING_RATE,
        clip=CLIP,
        data_parallel=make_data_parallel(model, use_threads(), rows=configuration.batch),
    )
    return lambda tokens, targets: float(train_step((tokens, targets), 0).loss)


def _torch(configuration: Configuration, weights: Weights, *, compiled: bool = False, bfloat16: bool = False) -> Step:
    from bench.peers.torch_gpt import training_step

    step = training_step(configuration, weights, compiled=compiled, bfloat16=bfloat16)
    return lambda tokens, targets: step(tokens, targets).item()


def _jax(configuration: Configuration, weights: Weights) -> Step:
    from bench.peers.jax_gpt import training_step

    return training_step(configuration, weights)


ENGINES: dict[str, Engine] = {
    OURS: Engine("tinygrad_chat.models.gpt", lambda configuration, _: _ours(configuration)),
    PLAIN: Engine("tinygrad_chat.models.gpt", lambda configuration, _: _ours(configuration, "numpy")),
    "torch eager": Engine("torch", _torch),
    "torch compile": Engine("torch", lambda *given: _torch(*given, compiled=True)),
    "jax jit": Engine("jax", _jax),
    "torch bfloat16": Engine("torch", lambda *given: _torch(*given, bfloat16=True), tolerance=5e-2),
}
"""NumPy has no product of bfloat16, whose mantissa has eight bits; so the last is not to be compared with."""

FULL_PRECISION_TORCH = ("torch eager", "torch compile")


def peak_mib() -> float:
    """Return the most memory that this process has held so far, in MiB.

    Linux counts it for the program that runs; elsewhere the process that started this one may stand behind the figure.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def describe_threads() -> dict[str, Any]:
    """Return how many threads this process has now, and how many each pool of a library would use."""
    pools = {pool["internal_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    return {"process": psutil.Process().num_threads(), "pools": pools}


def main(engine: str, sizes: str, weights: str, *more: str) -> None:
    """Run the steps that stdin asks for."""
    configuration = Configuration.parse(sizes)
    importlib.import_module(ENGINES[engine].library)
    imported_mib = peak_mib()
    if "keep-memory" in more:
        from tinygrad_chat.backend.allocation import keep_freed_memory

        keep_freed_memory()
    step, number = ENGINES[engine].make(configuration, np.load(weights)), 0

    def run(steps: int) -> dict[str, Any]:
        nonlocal number
        losses, seconds = [], []
        for _ in range(steps):
            tokens, targets = configuration.draw(number)
            began = time.perf_counter()
            losses.append(step(tokens, targets))
            seconds.append(time.perf_counter() - began)
            number += 1
        memory = {"imported_mib": imported_mib, "peak_mib": peak_mib()}
        return {"losses": losses, "seconds": seconds, **memory, "threads": describe_threads()}

    serve(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
