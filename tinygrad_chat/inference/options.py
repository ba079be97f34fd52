"""What a user can choose about sampling. Standard library only, so that `tgc --help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import option, validate


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How text is drawn from a model. Without `prompt` it begins as a new document does."""

    prompt: str = option("", "text to go on from")
    max_new_tokens: int = option(500, "most tokens to add; a text may end earlier", minimum=1)
    temperature: float = option(
        0.8, "below 1 more careful, above 1 more varied, 0 always the likeliest token", minimum=0
    )
    top_k: int | None = option(None, "choose among this many likeliest tokens", minimum=1)
    top_p: float | None = option(None, "choose among the likeliest tokens that share this probability", above=0)
    num_samples: int = option(1, "texts to draw", minimum=1)
    seed: int = option(1, "decides what is drawn", minimum=0)

    def __post_init__(self) -> None:
        validate(self)
        if self.top_p is not None and self.top_p > 1:
            raise ConfigError(f"--top-p: expected a probability of at most 1, received {self.top_p}")
