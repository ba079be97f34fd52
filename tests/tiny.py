"""A configuration small enough to train in a blink."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.config.record import SPECS
from tinygrad_chat.option import unmet_need

TINY: dict[str, Any] = {
    "layers": 1,
    "heads": 2,
    "width": 8,
    "context": 8,
    "batch_size": 3,
    "steps": 6,
    "eval_every": 3,
    "log_every": 1,
    "warmup": 2,
}


def without_idle(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that play a part beside each other: a bigram, say, has no layers to choose."""
    every = {name: spec.default for name, spec in SPECS.items()} | settings
    return {name: value for name, value in settings.items() if unmet_need(SPECS[name], every) is None}


def tiny_settings(**settings: Any) -> dict[str, Any]:
    """Return the settings of a tiny run with others of one's own."""
    return {**without_idle({**TINY, **{name: settings[name] for name in ("model",) if name in settings}}), **settings}
