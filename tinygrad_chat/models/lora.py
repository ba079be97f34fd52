"""LoRA (Hu et al., arXiv:2106.09685): add low-rank adapters to the matrices of a trained model, or merge them into it.

The parameter table has their shapes and initialisers; each engine's linear layer adds their product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.parameter_table import by_name, parameter_table
from tinygrad_chat.models.weights import checked_weights, draw

LORA_A, LORA_B = ".lora_a", ".lora_b"  # suffixes of the names of an adapter's two matrices


def with_adapters(
    options: ModelOptions, vocabulary: int, weights: Mapping[str, Any], random: np.random.Generator
) -> dict[str, Any]:
    """Return a model's weights with new adapters where they have none. The model's output does not change."""
    adapters = {
        name: draw(entry.initialiser, random, entry.shape)
        for name, _, entry in by_name(parameter_table(options, vocabulary))
        if entry.role == "adapter"
    }
    return adapters | dict(weights)


def merge(options: ModelOptions, vocabulary: int, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights with each adapter merged into its matrix, W + scale B A. The model's output does not change.

    Weights without an adapter are the same arrays. Raises CheckpointError if names or shapes do not fit the options.
    """
    checked_weights(options, vocabulary, weights)
    merged = {name: array for name, array in weights.items() if not name.endswith((LORA_A, LORA_B))}
    for name, lora_a in weights.items():
        if name.endswith(LORA_A):
            layer = name.removesuffix(LORA_A)
            with np.errstate(all="ignore"):  # an overflow is reported when a token is sampled
                learned = options.lora_scale * (weights[layer + LORA_B] @ lora_a)
                merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + learned
    return merged
