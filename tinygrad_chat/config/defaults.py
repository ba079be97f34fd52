"""Defaults that depend on the model, engine, optimiser or objective, and override the options' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygrad_chat.config.groups import UNBOUNDED
from tinygrad_chat.config.record import SPECS

DEFAULTS_FOR: dict[str, dict[str, Any]] = {
    "bigram": {"lr": 0.02, "weight_decay": 0.0, "norm": "none", "tied": False},  # a table of logits of rank `width`
    "muon": {"lr": 0.02},
    "grpo": {"batch_size": 128, "steps": 100, "eval_every": 20, "log_every": 1},
    "scalar": {  # small enough to watch
        "layers": 1,
        "heads": 4,
        "width": 16,
        "context": 8,
        "batch_size": 1,
        "steps": 300,
        "tokenizer": "characters",
        "warmup": 20,
        "lr": 0.01,
        "eval_every": 100,
        "eval_tokens": 512,
    },
}
"""By the value of --model, --mode, --optimizer or --objective; nanochat's settings follow from its depth, in
scaling_laws.py."""

SCALAR_MODE_RATES = {"embedding_lr": 0.15, "head_lr": 0.004, "scalar_lr": 0.25, "weight_decay": 0.1}
"""For nanochat in scalar mode: its scaling laws are not made for eight tokens per step."""


def defaults_for(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for the model, engine, optimiser and objective of the `chosen` settings."""
    defaults: dict[str, Any] = {"steps": UNBOUNDED} if "minutes" in chosen else {}
    if chosen.keys() & {"vocabulary", "pre_tokenizer"}:
        defaults["tokenizer"] = "bpe"
    for name in ("objective", "mode", "model", "optimizer"):
        defaults = {**DEFAULTS_FOR.get(chosen.get(name, SPECS[name].default), {}), **defaults}
    return defaults


def rates_beside_muon(rate: float, initialisation: str) -> dict[str, float]:
    """Return the default learning rates of the parameters that Muon leaves to AdamW, in nanochat's ratio to Muon's.

    The embeddings' rate is also proportional to their initial standard deviation: 0.8 in nanochat, else 0.02.
    """
    size = 1.0 if initialisation == "nanochat" else 0.02 / 0.8
    return {"embedding_lr": 15.0 * size * rate, "head_lr": 0.4 * rate, "scalar_lr": 25.0 * rate}
