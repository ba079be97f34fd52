"""karpathy/nanochat from a checkout of its own: imported, never copied; docs/upstream_analysis.md names the commit.

Its training script cannot be imported. What that does around model and optimiser is written here from our analysis:
rates by batch, schedules, one step. PyTorch's pickles are not touched.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.optim.schedule import cosine_decay, muon_momentum, nanochat

VARIABLE = "NANOCHAT_DIR"
COMMIT = "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd"


def why_absent(folder: str | None) -> str | None:
    """Return why upstream cannot run here, None where it can."""
    if not folder:
        return f"no checkout of karpathy/nanochat: name one with --nanochat DIR or in the variable {VARIABLE}"
    if not (Path(folder) / "nanochat" / "gpt.py").is_file():
        return f"{folder}: no checkout of karpathy/nanochat there"
    if find_spec("torch") is None:
        return "PyTorch is not installed, the extra peers: pip install -e '.[peers]'"
    return None


def commit_of(folder: str) -> str:
    """Return the checkout's commit, or what stands in its way."""
    command = ["git", "-C", folder, "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"


def upstream_module(name: str, folder: str, *, compiled: bool = False, dtype: str = "float32") -> Any:
    """Import a module such as nanochat.gpt from the checkout at `folder`, to compute in `dtype`.

    Unless `compiled`, what it would compile runs as it is written. A process can have it in one way only.
    """
    import torch

    if folder not in sys.path:
        sys.path.append(folder)
    for library in ("rustbpe", "tiktoken"):  # of its tokenizer, which nothing here uses
        if library not in sys.modules and find_spec(library) is None:
            sys.modules[library] = ModuleType(library)

    def as_written(function: Any = None, **_: Any) -> Any:
        return function or as_written

    compiler = torch.compile if compiled else as_written
    in_dtype = mock.patch.dict(os.environ, NANOCHAT_DTYPE=dtype)  # read at import
    with in_dtype, mock.patch.object(torch, "compile", compiler), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its libraries, none of our business
        return importlib.import_module(name)


def arrays_of(model: Any, *, gradient: bool = False) -> dict[str, np.ndarray]:
    """Return the parameters of upstream's model, or their gradients, by its names."""
    return {name: (p.grad if gradient else p).detach().float().cpu().numpy() for name, p in model.named_parameters()}


def build(
    folder: str,
    config: Mapping[str, Any],
    *,
    seed: int = 42,
    weights: Mapping[str, np.ndarray] | None = None,
    device: str = "cpu",
    **imported: Any,
) -> Any:
    """Return upstream's model of a model_config, with its own first weights of a seed, or with `weights`."""
    import torch

    gpt = upstream_module("nanochat.gpt", folder, **imported)
    torch.manual_seed(seed)
    with mock.patch("builtins.print"):  # it tells of its padding
        model = gpt.GPT(gpt.GPTConfig(**config))
    model.to(device)
    model.init_weights()
    if weights is not None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.as_tensor(weights[name]))
    return model


def training_step(
    model: Any, config: TrainingConfig, *, compiled: bool = False
) -> Callable[[np.ndarray, np.ndarray, int], Any]:
    """Return one step of upstream's training on tokens and targets (B, T) -> loss, a tensor, given the step's number.

    Rates and decay are those of `config`, which has them as upstream's optimiser takes them but for the factor of the
    width, which that multiplies by itself.
    """
    import torch

    by_width = (config.model.width / 768) ** -0.5
    assert config.optimizer.embedding_lr
    assert config.optimizer.head_lr
    assert config.optimizer.scalar_lr
    with mock.patch("builtins.print"):
        optimizer = model.setup_optimizer(
            unembedding_lr=config.optimizer.head_lr / by_width,
            embedding_lr=config.optimizer.embedding_lr / by_width,
            scalar_lr=config.optimizer.scalar_lr,
            matrix_lr=config.optimizer.lr,
            weight_decay=config.optimizer.weight_decay,
        )
    share_of_peak = nanochat(
        peak=1.0,
        minimum=config.schedule.min_lr / config.optimizer.lr,
        warmup=config.schedule.warmup,
        steps=config.schedule.steps,
        warmdown=config.schedule.warmdown,
    )
    momentum = muon_momentum(steps=config.schedule.steps, warmdown=config.schedule.warmdown)
    decay = cosine_decay(peak=config.optimizer.weight_decay, steps=config.schedule.steps)
    forward = torch.compile(model, dynamic=False) if compiled else model
    device = model.get_device()

    def step(tokens: np.ndarray, targets: np.ndarray, number: int) -> Any:
        inputs, wanted = (torch.as_tensor(np.ascontiguousarray(x), device=device) for x in (tokens, targets))
        loss = forward(inputs, wanted)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share_of_peak(number)
            if group["kind"] == "muon":
                group["momentum"], group["weight_decay"] = momentum(number), decay(number)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def token_losses(model: Any, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the loss in nats of each target (B, T)."""
    import torch

    device = model.get_device()
    with torch.no_grad():
        inputs, wanted = (torch.as_tensor(np.ascontiguousarray(x), device=device) for x in (tokens, targets))
        return model(inputs, wanted, loss_reduction="none").view(targets.shape).float().cpu().numpy()
