"""How models compute: options like those in groups.py, shared by training and inference, and training's own.

Standard library only, so that `tgc --help` stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import needs, option, validate

TENSOR = needs("mode", "tensor")
"""What makes sense only where arrays are computed with."""


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Which engine computes, where and how precisely."""

    mode: str = option(
        "tensor",
        "arrays, or one number at a time",
        choices=("tensor", "scalar"),
        common=True,
        fixed=False,
        needs=needs("model", "bigram", "mini-gpt", "nanochat"),
    )
    backend: str = option("auto", "where arrays live", choices=("auto", "numpy", "cupy"), common=True, fixed=False)
    kernels: str = option(
        "auto",
        "faster versions of ops: the fastest installed, or one kind",
        choices=("auto", "cuda", "numba", "numpy", "reference"),
        fixed=False,
        needs=TENSOR,
    )
    dtype: str = option(
        "auto",
        "precision of activations and products; weights and their gradients stay float32",
        choices=("auto", "float32", "tf32", "bfloat16"),
        fixed=False,
    )
    threads: int | None = option(
        None, "processor threads (default one for each core)", minimum=1, fixed=False, needs=TENSOR
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.mode == "scalar" and self.backend == "cupy":
            raise ConfigError(
                "--mode scalar: expected --backend numpy or auto, received cupy: Values are Python objects"
            )
        if self.mode == "scalar" and self.dtype not in ("auto", "float32"):
            raise ConfigError(f"--dtype: expected auto in scalar mode, received {self.dtype}: Values are Python floats")


@dataclass(frozen=True, kw_only=True)
class TrainingComputeOptions(ComputeOptions):
    """How a training step is computed."""

    grad_accumulation: int = option(
        1,
        "split a step's batch into this many micro-batches: less memory, the same gradient",
        minimum=1,
        formerly=("accumulate",),
        fixed=False,
    )
    recompute: bool = option(
        False,
        "keep fewer activations and compute each block again in the backward pass: less memory, a third more time",
        fixed=False,
        needs=(TENSOR, needs("dropout", 0.0), needs("model", "mini-gpt", "nanochat")),
    )
    graph: bool = option(True, "capture a step on a GPU once and replay it as CUDA graphs", fixed=False, needs=TENSOR)
    autotune: bool = option(
        True, "time a GPU's algorithms for each matrix product once and keep the fastest", fixed=False, needs=TENSOR
    )
