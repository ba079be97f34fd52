"""The sampling settings that a model's makers recommend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinygrad_chat.schema import OPTIONAL


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling settings from a model's own files, None if not given there: defaults for the options of the same names
    in `inference/options.py`, which check their values."""

    temperature: float | None = field(default=None, metadata=OPTIONAL)
    top_k: int | None = field(default=None, metadata=OPTIONAL)
    top_p: float | None = field(default=None, metadata=OPTIONAL)
    min_p: float | None = field(default=None, metadata=OPTIONAL)
    repetition_penalty: float | None = field(default=None, metadata=OPTIONAL)

    def settings(self) -> dict[str, Any]:
        """Return the given settings by the options' names."""
        return {name: value for name, value in vars(self).items() if value is not None}
