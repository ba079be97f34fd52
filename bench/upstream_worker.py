"""One side of the comparison with karpathy/nanochat, in a process of its own.

    python -m bench.upstream_worker ENGINE REQUEST

ENGINE is one of ENGINES; REQUEST, in JSON, holds the checkout's folder, the device, the configuration of the run, the
file of the first weights (or none: the engine draws its own), the file of the tokens, and the vocabulary. Then it is
told, a line each, to train some steps or to evaluate.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.turns import OURS, serve
from bench.worker import describe_threads, peak_mib
from tinygrad_chat.config.record import TrainingConfig, from_saved
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import batches_in_order, random_batch

EAGER, COMPILED = "nanochat eager", "nanochat compile"
EVALUATED = 4096  # tokens at a time

Answer = Callable[[int], dict[str, Any]]
"""steps, or tokens -> what came of them, ready for JSON"""


class OurSide:
    """tinygrad_chat: what `tgc train --model nanochat` runs."""

    def __init__(self, request: Mapping[str, Any], config: TrainingConfig) -> None:
        from tinygrad_chat.backend import Compute
        from tinygrad_chat.interchange.nanochat import from_nanochat
        from tinygrad_chat.models.gpt import GPT
        from tinygrad_chat.parallel import make_data_parallel, use_threads
        from tinygrad_chat.training.build import build_train_step

        compute = Compute.choose("cupy" if request["device"] == "cuda" else "numpy")
        self._backend = compute.backend
        random = rng(config.run.seed, "initialisation")
        self._model = GPT(request["vocabulary"], config.model, compute=compute, random=random)
        if request["weights"]:
            self._model.parameters().load(from_nanochat(np.load(request["weights"]), config.model))
        threads, rows = use_threads(), config.micro_batch
        self._step = build_train_step(config, self._model, make_data_parallel(self._model, threads, rows=rows))

    def step(self, tokens: np.ndarray, targets: np.ndarray, number: int) -> float:
        """Train once; return the loss before."""
        return float(self._step((tokens, targets), number).loss)

    def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return each target's loss in nats."""
        from tinygrad_chat.backend import to_host

        return to_host(self._model.token_losses(tokens, targets))

    def attention(self) -> str:
        """Return which attention it runs."""
        return "its own"

    def memory_mib(self) -> float:
        """Return the most memory held, of the process or of the device."""
        held = self._backend.memory_held()
        return peak_mib() if held is None else held / 2**20


class TheirSide:
    """Upstream's model and optimiser, eager or compiled as its script compiles them."""

    def __init__(self, request: Mapping[str, Any], config: TrainingConfig, *, compiled: bool) -> None:
        from bench.peers import nanochat
        from tinygrad_chat.interchange.nanochat import nanochat_config

        self._device = request["device"]
        self._peer = nanochat
        dtype = "bfloat16" if self._device == "cuda" else "float32"
        self._model = nanochat.build(
            request["checkout"],
            nanochat_config(config.model, request["vocabulary"]),
            seed=config.run.seed,
            weights=np.load(request["weights"]) if request["weights"] else None,
            device=self._device,
            compiled=compiled,
            dtype=dtype,
        )
        self._step = nanochat.training_step(request["checkout"], self._model, config, compiled=compiled)

    def step(self, tokens: np.ndarray, targets: np.ndarray, number: int) -> float:
        """Train once; return the loss before."""
        return self._step(tokens, targets, number).item()

    def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return each target's loss in nats."""
        return self._peer.token_losses(self._model, tokens, targets)

    def attention(self) -> str:
        """Return which attention it runs."""
        return self._peer.chosen_attention()

    def memory_mib(self) -> float:
        """Return the most memory held, of the process or of the device."""
        if self._device == "cpu":
            return peak_mib()
        import torch

        return torch.cuda.max_memory_allocated() / 2**20


ENGINES: dict[str, Callable[[Mapping[str, Any], TrainingConfig], OurSide | TheirSide]] = {
    OURS: OurSide,
    EAGER: lambda request, config: TheirSide(request, config, compiled=False),
    COMPILED: lambda request, config: TheirSide(request, config, compiled=True),
}


def answers_of(side: OurSide | TheirSide, request: Mapping[str, Any], config: TrainingConfig) -> tuple[Answer, Answer]:
    """Return what trains the side for a number of steps, and what evaluates it on so many held-out tokens."""
    data = np.load(request["tokens"])
    training, validation, sizes = data["training"], data["validation"], data["bytes_per_token"]
    number = 0

    def train(steps: int) -> dict[str, Any]:
        nonlocal number
        losses, seconds = [], []
        for _ in range(steps):
            random = rng(config.run.seed, "batches", number)
            batch = random_batch(
                training, batch_size=config.data.batch_size, context=config.model.context, random=random
            )
            began = time.perf_counter()
            losses.append(side.step(*batch, number))
            seconds.append(time.perf_counter() - began)
            number += 1
        return {"losses": losses, "seconds": seconds, "peak_mib": side.memory_mib(), "threads": describe_threads()}

    def evaluate(tokens: int) -> dict[str, Any]:
        nats, of_text, count, size = 0.0, 0.0, 0, 0
        whole = (
            (min(tokens, len(validation)) - 1) // config.model.context * config.model.context
        )  # upstream knows whole windows only
        batch_size = max(1, EVALUATED // config.model.context)
        for batch in batches_in_order(validation[: whole + 1], batch_size=batch_size, context=config.model.context):
            losses, lengths = side.token_losses(*batch).astype(np.float64), sizes[batch[1]]
            nats, of_text = nats + losses.sum(), of_text + losses[lengths > 0].sum()
            count, size = count + losses.size, size + int(lengths.sum())
        return {"loss": nats / count, "bits_per_byte": of_text / np.log(2) / size, "tokens": count}

    return train, evaluate


def main(engine: str, text: str) -> None:
    """Train and evaluate as stdin asks."""
    request = json.loads(text)
    config = from_saved(request["config"], source="the request")
    began = time.perf_counter()
    side = ENGINES[engine](request, config)
    built = {"built_seconds": time.perf_counter() - began, "attention": side.attention()}
    train, evaluate = answers_of(side, request, config)
    answers: dict[str, Answer] = {"ready": lambda _: built, "train": train, "evaluate": evaluate}
    serve(lambda asked: answers[asked["what"]](asked["amount"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
