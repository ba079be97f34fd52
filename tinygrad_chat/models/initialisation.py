"""How a model's weights begin, by the part they play."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.nn.layers import INITIAL_STD, Draw, normal, uniform, zeros


@dataclass(frozen=True)
class Initialisation:
    """What each kind of weight is drawn from: `read` is for query, key and value, `write` for what is added to the
    stream, `expand` for the feed-forward's way out."""

    embedding: Draw
    value_embedding: Draw
    head: Draw
    read: Draw
    expand: Draw
    write: Draw
    gate: Draw


def gpt2(options: ModelOptions) -> Initialisation:
    """Normal, of one deviation (Radford et al., 2019)."""
    same = normal(INITIAL_STD)
    # 2 L answers are added to the stream; this keeps their sum's size independent of the depth.
    write = normal(INITIAL_STD / math.sqrt(2 * max(options.layers, 1)))
    return Initialisation(same, same, same, same, same, write, same)


def nanochat(options: ModelOptions) -> Initialisation:
    """Uniform by width, and nothing written at first (karpathy/nanochat; docs/upstream_analysis.md, chapter 2)."""
    bound = math.sqrt(3 / options.width)  # so that the deviation is 1 / sqrt(C)
    read = uniform(-bound, bound)
    return Initialisation(
        embedding=normal(0.8),
        value_embedding=read,
        head=normal(0.001),
        read=read,
        expand=uniform(-0.4 * bound, 0.4 * bound),
        write=zeros,
        gate=uniform(0, 0.02),
    )


INITIALISATIONS: dict[str, Callable[[ModelOptions], Initialisation]] = {"gpt2": gpt2, "nanochat": nanochat}
