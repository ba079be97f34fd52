"""karpathy/nanochat from a checkout of its own: imported, never copied; docs/upstream_analysis.md names the commit.

Its training script cannot be imported. Its schedules are taken out of its text; what else it does around model and
optimiser is written here from our analysis: rates by batch, one step. PyTorch's pickles are not touched.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.optim import Schedule

VARIABLE = "NANOCHAT_DIR"
COMMIT = "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd"


def why_absent(folder: str | None) -> str | None:
    """Return why upstream cannot run here, None where it can."""
    if not folder:
        return f"no checkout of karpathy/nanochat: name one with --nanochat DIR or in the variable {VARIABLE}"
    if not (Path(folder) / "nanochat" / "gpt.py").is_file():
        return f"{folder}: no checkout of karpathy/nanochat there"
    commit = commit_of(folder)
    if commit != COMMIT:
        return (
            f"{folder}: expected commit {COMMIT}, received {commit}; "
            f"check that out, unchanged: git -C {folder} checkout {COMMIT[:7]}"
        )
    if find_spec("torch") is None:
        return "PyTorch is not installed, the extra peers: pip install -e '.[peers]'"
    return None


def commit_of(folder: str) -> str:
    """Return the checkout's commit, with "-dirty" behind it where files have changed, or what stands in its way."""
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Let a measurement be told where the checkout is."""
    parser.add_argument(
        "--nanochat",
        default=os.environ.get(VARIABLE),
        metavar="DIR",
        help=f"a checkout of karpathy/nanochat (default: the variable {VARIABLE})",
    )


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


def chosen_attention() -> str:
    """Return which attention upstream, already imported, chose here: FlashAttention-3 if it could fetch it."""
    chosen = importlib.import_module("nanochat.flash_attention")
    if chosen.USE_FA3:
        return "FlashAttention-3"
    return "PyTorch's scaled_dot_product_attention, a mask for windows" + _chosen_by_pytorch()


def _chosen_by_pytorch() -> str:
    """Return, for a GPU, which attentions PyTorch takes in d12's shape for whole and for windowed layers."""
    import torch

    from bench.peers.torch_attention import chosen_attention

    if not torch.cuda.is_available():
        return ""
    sizes = {"heads": 6, "context": 2048, "head_width": 128}
    whole, windowed = (chosen_attention("cuda", torch.bfloat16, **sizes, masked=masked) for masked in (False, True))
    return f" ({whole}; with a mask {windowed})"


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


SCHEDULES = ("get_lr_multiplier", "get_muon_momentum", "get_weight_decay")


def schedules(folder: str, config: TrainingConfig) -> list[Schedule]:
    """Return upstream's own, from step to share of the highest rate, Muon's momentum and its decay.

    They are three functions of its training script, and read their settings where that has them.
    """
    script = Path(folder) / "scripts" / "base_train.py"
    program = ast.parse(script.read_text(encoding="utf-8"))
    program.body = [part for part in program.body if isinstance(part, ast.FunctionDef) and part.name in SCHEDULES]
    names: dict[str, Any] = {
        "math": math,
        "num_iterations": config.schedule.steps,
        "weight_decay_scaled": config.optimizer.weight_decay,
        "args": SimpleNamespace(
            warmup_steps=config.schedule.warmup,
            warmdown_ratio=config.schedule.warmdown,
            final_lr_frac=config.schedule.min_lr / config.optimizer.lr,
        ),
    }
    exec(compile(program, script, "exec"), names)
    return [names[name] for name in SCHEDULES]


def training_step(
    folder: str, model: Any, config: TrainingConfig, *, compiled: bool = False
) -> Callable[[np.ndarray, np.ndarray, int], Any]:
    """Return one step of upstream's training on tokens and targets (B, T) -> loss, a tensor, given the step's number.

    Rates and decay are those of `config`, which has them as upstream's optimiser takes them but for the factor of the
    width, which that multiplies by itself. They follow upstream's schedules, from the checkout at `folder`.
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
    share_of_peak, momentum, decay = schedules(folder, config)
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
