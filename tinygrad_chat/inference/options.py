"""What a user can choose about sampling. Standard library only, so that `tgc --help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygrad_chat.option import option, specs_of, validate, validate_settings


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How text is drawn from a model. Without `prompt` it begins as a new document does."""

    prompt: str = option("", "text to go on from; - reads standard input")
    max_new_tokens: int = option(500, "most tokens to add; a text may end earlier", minimum=1)
    temperature: float = option(
        0.8, "below 1 more careful, above 1 more varied, 0 always the likeliest token", minimum=0
    )
    top_k: int | None = option(None, "choose among this many likeliest tokens", minimum=1)
    top_p: float | None = option(
        None, "choose among the likeliest tokens that share this probability", above=0, maximum=1
    )
    num_samples: int = option(1, "texts to draw", minimum=1)
    seed: int = option(1, "decides what is drawn", minimum=0)

    def __post_init__(self) -> None:
        validate(self)


def expect_sampling(**settings: Any) -> None:
    """Raise ConfigError for the first of these settings that `SamplingOptions` would not take."""
    validate_settings(specs_of(SamplingOptions), settings)
