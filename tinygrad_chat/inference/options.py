"""The options of sampling. Standard library only, so that `tgc --help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygrad_chat.config.compute import TENSOR, ComputeOptions
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import option, specs_of, validate, validate_settings

CHAT_TEMPERATURE = 0.3  # low, for facts


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(ComputeOptions):
    """How a trained model computes."""

    weights: str = option(
        "float32",
        "how the model's matrices are kept: float16 takes half of the memory and int8 a quarter, and both are faster",
        choices=("float32", "float16", "int8"),
    )
    graph: bool = option(
        True, "capture the step of one token on a GPU once and replay it as a CUDA graph", needs=TENSOR
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights != "float32" and self.mode == "scalar":
            raise ConfigError(f"--weights: expected float32 with --mode scalar, received {self.weights}")
        if self.weights != "float32" and self.backend == "cupy":
            raise ConfigError(f"--weights: expected float32 on a GPU, received {self.weights}; or use --backend numpy")


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How tokens are drawn from a model, and when to stop."""

    max_new_tokens: int = option(500, "largest number of tokens to add; a text may end earlier", minimum=1)
    temperature: float = option(
        0.8, "below 1 more careful, above 1 more varied, 0 always the likeliest token", minimum=0
    )
    top_k: int | None = option(None, "choose among this many likeliest tokens", minimum=1)
    top_p: float | None = option(
        None, "choose among the likeliest tokens that together have this probability", above=0, maximum=1
    )
    min_p: float | None = option(
        None, "choose among tokens with at least this fraction of the likeliest token's probability", above=0, maximum=1
    )
    repetition_penalty: float = option(
        1.0, "above 1, tokens that occurred before become less likely (1: no penalty)", minimum=1
    )
    stop: str | tuple[str, ...] | None = option(None, "stop before this text; can be given several times", several=True)
    seed: int = option(1, "seed of the random choice of tokens", minimum=0)

    def __post_init__(self) -> None:
        validate(self)
        if not all(self.stops):
            raise ConfigError("--stop: expected a text, received none")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings: a text ends before the first of them."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(GenerationOptions):
    """How text is drawn from a model. Without a `prompt` a new document begins."""

    prompt: str = option("", "text to continue; - reads standard input")
    num_samples: int = option(1, "how many texts to write", minimum=1)


def expect_sampling(**settings: Any) -> None:
    """Raise ConfigError for the first of these settings that `SamplingOptions` would refuse."""
    validate_settings(specs_of(SamplingOptions), settings)
