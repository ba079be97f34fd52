"""How a model's weights begin, by the part they play. Standard library only: models/weights.py draws the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tinygrad_chat.models.options import ModelOptions

GPT2_STD = 0.02  # for widths of this order (Radford et al., 2019)


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
    """How each kind of weight begins: `read` is for query, key and value, `write` for what is added to the stream,
    `expand` for the feed-forward's way out."""

    embedding: Initialiser
    value_embedding: Initialiser
    head: Initialiser
    read: Initialiser
    expand: Initialiser
    write: Initialiser
    gate: Initialiser


def gpt2(options: ModelOptions) -> Initialisation:
    """Normal, of one deviation (Radford et al., 2019)."""
    same = Normal(GPT2_STD)
    # 2 L branches are added to the stream; this keeps their sum's size independent of the depth.
    write = Normal(GPT2_STD / math.sqrt(2 * max(options.layers, 1)))
    return Initialisation(same, same, same, same, same, write, same)


def nanochat(options: ModelOptions) -> Initialisation:
    """Uniform by width, and nothing written at first (karpathy/nanochat; docs/upstream_analysis.md, chapter 2)."""
    bound = math.sqrt(3 / options.width)  # so that the deviation is 1 / sqrt(C)
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
