"""How those who made a model would have its tokens drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinygrad_chat.schema import OPTIONAL


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What a model's own files say of drawing tokens, None where they do not: the defaults of the options of the same
    names in `inference/options.py`, which know what values they may have."""

    temperature: float | None = field(default=None, metadata=OPTIONAL)
    top_k: int | None = field(default=None, metadata=OPTIONAL)
    top_p: float | None = field(default=None, metadata=OPTIONAL)
    min_p: float | None = field(default=None, metadata=OPTIONAL)
    repetition_penalty: float | None = field(default=None, metadata=OPTIONAL)

    def settings(self) -> dict[str, Any]:
        """Return what they say, by the options' names."""
        return {name: value for name, value in vars(self).items() if value is not None}
