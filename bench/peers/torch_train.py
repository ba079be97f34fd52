"""A plain training script in PyTorch, whole, written the way nanoGPT's is: what people run who do not run ours.

    python -m bench.peers.torch_train REQUEST

REQUEST, in JSON: the file of text, the folder for checkpoints, the settings of the run as `tgc train` saves them,
whether to compile, and either the file of first weights, for nanoGPT's model, or a checkout of karpathy/nanochat, for
that one, which draws its own. It draws its batches, evaluates on the held-out tenth, saves the model and prints a line
at each evaluation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.configurations import Configuration
from bench.peers import nanochat
from bench.peers.torch_gpt import TorchGPT
from tinygrad_chat.config.record import TrainingConfig, from_saved
from tinygrad_chat.interchange.nanochat import nanochat_config

EVALUATED = 4096  # tokens at a time
Step = Callable[[np.ndarray, np.ndarray, int], Tensor]
"""tokens and targets (B, T), the step's number -> loss"""
Loss = Callable[[Tensor, Tensor], Tensor]


def main(text: str) -> None:
    """Train from nothing to the end."""
    request = json.loads(text)
    config = from_saved(request["config"], source="the request")
    torch.manual_seed(config.run.seed)
    random = np.random.default_rng(config.run.seed)
    tokens, vocabulary = _tokens(Path(request["data"]))
    split = len(tokens) - len(tokens) // 10
    training, validation = tokens[:split], tokens[split:][: config.run.eval_tokens or None]
    model, step, loss_of = _prepare(config, vocabulary, request)
    for number in range(config.schedule.steps + 1):
        last = number == config.schedule.steps
        if last or number % config.run.eval_every == 0:
            print(f"step={number} val_loss={_evaluate(loss_of, validation, config.model.context):.4f}", flush=True)
            torch.save(model.state_dict(), Path(request["out"]) / "checkpoint.pt")
        if not last:
            step(*_batch(training, config.data.batch_size, config.model.context, random), number)


def _tokens(path: Path) -> tuple[np.ndarray, int]:
    """Return a text's characters as tokens, and the size of the vocabulary: that of ours, with BOS."""
    text = path.read_text(encoding="utf-8")
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    return np.array([numbers[character] for character in text], dtype=np.uint16), len(numbers) + 1


def _batch(tokens: np.ndarray, size: int, context: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    starts = random.integers(len(tokens) - context, size=size)
    windows = np.stack([tokens[start : start + context + 1] for start in starts]).astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


def _evaluate(loss_of: Loss, tokens: np.ndarray, context: int) -> float:
    """Return the mean loss over the whole windows of `tokens`."""
    count = (len(tokens) - 1) // context
    inputs = torch.from_numpy(tokens[: count * context].astype(np.int64)).view(count, context)
    targets = torch.from_numpy(tokens[1 : count * context + 1].astype(np.int64)).view(count, context)
    rows = max(1, EVALUATED // context)
    with torch.no_grad():
        parts = zip(inputs.split(rows), targets.split(rows), strict=True)
        return sum(loss_of(*part).item() * len(part[0]) for part in parts) / count


def _prepare(config: TrainingConfig, vocabulary: int, request: dict[str, Any]) -> tuple[Any, Step, Loss]:
    """Return a new model, its training step and its loss."""
    compiled = request["compiled"]
    if request["checkout"]:
        model = nanochat.build(
            request["checkout"],
            nanochat_config(config.model, vocabulary),
            seed=config.run.seed,
            compiled=compiled,
        )
        return model, nanochat.training_step(request["checkout"], model, config, compiled=compiled), model
    model = TorchGPT(Configuration(config.data.batch_size, vocabulary, config.model), np.load(request["weights"]))
    optimizer, options, schedule = model.optimizer(), config.optimizer, config.schedule
    for group in optimizer.param_groups:
        group["betas"] = (options.beta1, options.beta2)
    forward = torch.compile(model) if compiled else model

    def step(tokens: np.ndarray, targets: np.ndarray, number: int) -> Tensor:
        way_down = (schedule.steps - number) / (schedule.steps - schedule.warmup)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, (number + 1) / schedule.warmup, way_down)
        optimizer.zero_grad(set_to_none=True)
        loss = forward(torch.from_numpy(tokens), torch.from_numpy(targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        return loss.detach()

    return model, step, model


if __name__ == "__main__":
    main(*sys.argv[1:])
