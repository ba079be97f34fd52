"""How a model's weights are initialised, by their role. Standard library only: models/weights.py draws the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tinygrad_chat.models.options import ModelOptions

GPT2_STD = 0.02  # for GPT-2's widths (Radford et al., 2019)


@dataclass(frozen=True)
class Normal:
    """Numbers around 0 with standard deviation `std`."""

    std: float


@dataclass(frozen=True)
class Uniform:
    """Numbers from `low` to `high`, all equally likely."""

    low: float
    high: float


@dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float


@dataclass(frozen=True)
class Ramp:
    """Evenly spaced numbers, from `first` to `first + change`."""

    first: float
    change: float


Initialiser = Normal | Uniform | Constant | Ramp

ZEROS, ONES = Constant(0.0), Constant(1.0)


@dataclass(frozen=True)
class Initialisation:
    """The initialiser of each kind of weight: `read` for query, key and value; `write` for projections back into the
    residual stream; `expand` for feed-forward's projection to a greater width."""

    embedding: Initialiser
    value_embedding: Initialiser
    head: Initialiser
    read: Initialiser
    expand: Initialiser
    write: Initialiser
    gate: Initialiser


def gpt2(options: ModelOptions) -> Initialisation:
    """Normal, with one standard deviation (Radford et al., 2019)."""
    same = Normal(GPT2_STD)
    # 2 L branches are added to the stream; this keeps the size of their sum independent of the depth.
    write = Normal(GPT2_STD / math.sqrt(2 * max(options.layers, 1)))
    return Initialisation(same, same, same, same, same, write, same)


def nanochat(options: ModelOptions) -> Initialisation:
    """Uniform by width, with `write` at zero (karpathy/nanochat; docs/upstream_analysis.md, chapter 2)."""
    bound = math.sqrt(3 / options.width)  # so that the standard deviation is 1 / sqrt(C)
    read = Uniform(-bound, bound)
    return Initialisation(
        embedding=Normal(0.8),
        value_embedding=read,
        head=Normal(0.001),
        read=read,
        expand=Uniform(-0.4 * bound, 0.4 * bound),
        write=ZEROS,
        gate=Uniform(0, 0.02),
    )


INITIALISATIONS: dict[str, Callable[[ModelOptions], Initialisation]] = {"gpt2": gpt2, "nanochat": nanochat}
