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
