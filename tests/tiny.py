"""A configuration small enough to train in a blink."""

from __future__ import annotations

from typing import Any

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


OF_BLOCKS = {"layers", "heads"}


def tiny_settings(**settings: Any) -> dict[str, Any]:
    """Return the settings of a tiny run with others of one's own; a bigram has no blocks to choose."""
    chosen = {**TINY, **settings}
    return {name: value for name, value in chosen.items() if chosen.get("model") != "bigram" or name not in OF_BLOCKS}
