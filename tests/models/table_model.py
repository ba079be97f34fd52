"""A bigram whose every logit a test chooses."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_chat import GPT, ModelOptions


def table_model(logits: Any, context: int = 8) -> GPT:
    """The model whose logits after token t are row t of `logits` (V, V)."""
    V = len(logits)
    options = ModelOptions(width=V, layers=0, heads=1, positions="none", norm="none", tied=False, context=context)
    model = GPT(V, options)
    model.parameters()["token_embedding.weight"].data[...] = np.eye(V)
    model.parameters()["head.weight"].data[...] = np.transpose(logits)
    return model


def certain(V: int, following: dict[int, int]) -> np.ndarray:
    """Logits (V, V) that leave no doubt which token follows each."""
    logits = np.full((V, V), -50.0)
    for token, successor in following.items():
        logits[token, successor] = 50.0
    return logits
