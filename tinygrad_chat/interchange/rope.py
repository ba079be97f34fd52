"""Convert transformers' settings of rotary positions in a config.json to our options and back."""

from __future__ import annotations

import math
from typing import Any, TypedDict

from tinygrad_chat.errors import FormatError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.rotary_scaling import FAST_TURNS
from tinygrad_chat.schema import Amount, Positive

SOURCE = "config.json"


class Rope(TypedDict, total=False):
    """The known keys of `rope_parameters` (transformers 5) or `rope_scaling` (4)."""

    rope_type: str
    type: str
    rope_theta: Amount | None
    factor: Amount | None
    original_max_position_embeddings: Positive | None
    low_freq_factor: Amount | None
    high_freq_factor: Amount | None
    beta_slow: Amount | None
    beta_fast: Amount | None
    attention_factor: Amount | None
    mscale: Amount | None
    mscale_all_dim: Amount | None
    truncate: bool
    partial_rotary_factor: Amount | None


def options_from_rope(rope: Rope, *, theta: float, context: int) -> dict[str, Any]:
    """Return the options for rotary positions. `theta` and `context` are defaults for what `rope` does not state.

    Raises FormatError for a kind of scaling that is not supported.
    """
    kind = rope.get("rope_type") or rope.get("type") or "default"
    options: dict[str, Any] = {"positions": "rotary", "rotary_base": rope.get("rope_theta") or theta}
    share = rope.get("partial_rotary_factor")
    if share not in (None, 1.0):
        raise FormatError(f"{SOURCE}: partial_rotary_factor: expected 1, received {share}")
    if kind == "default":
        return options
    if kind not in ("linear", *FAST_TURNS):
        raise FormatError(f"{SOURCE}: rope_type: expected one of default, linear, llama3, yarn, received {kind!r}")
    original = rope.get("original_max_position_embeddings") or context
    factor = rope.get("factor") or context / original
    options |= {"rotary_scaling": kind, "rotary_factor": factor}
    if kind == "linear":
        return options
    slow, fast = ("low_freq_factor", "high_freq_factor") if kind == "llama3" else ("beta_slow", "beta_fast")
    options |= {
        "rotary_original_context": original,
        "rotary_slow_turns": rope.get(slow) or ModelOptions.rotary_slow_turns,
        "rotary_fast_turns": rope.get(fast) or FAST_TURNS[kind],
    }
    if kind == "yarn":
        if not rope.get("truncate", True):
            raise FormatError(f"{SOURCE}: rope_parameters.truncate: expected true, received false")
        options["rotary_attention_factor"] = rope.get("attention_factor") or _attention_factor(rope, factor)
    return options


def _attention_factor(rope: Rope, factor: float) -> float:
    """Return the factor of rotated queries and keys: YaRN's or, if both `mscale`s are given, DeepSeek's."""

    def weighted(weight: float) -> float:
        return 1 + weight * math.log(max(factor, 1.0)) / 10

    over, under = rope.get("mscale"), rope.get("mscale_all_dim")
    return weighted(over) / weighted(under) if over and under else weighted(1.0)


def rope_of(options: ModelOptions) -> dict[str, Any]:
    """Return a model's settings of rotary positions for a config.json, for transformers 4 and 5 alike."""
    config: dict[str, Any] = {"rope_theta": options.rotary_base}
    if options.rotary_scaling == "none":
        return config
    rope: dict[str, Any] = {"rope_type": options.rotary_scaling, "factor": options.rotary_factor}
    if options.rotary_scaling in FAST_TURNS:
        rope["original_max_position_embeddings"] = options.original_context
    if options.rotary_scaling == "llama3":
        rope |= {"low_freq_factor": options.rotary_slow_turns, "high_freq_factor": options.fast_turns}
    if options.rotary_scaling == "yarn":
        rope |= {"beta_slow": options.rotary_slow_turns, "beta_fast": options.fast_turns}
        rope["attention_factor"] = options.attention_factor
    return config | {"rope_scaling": rope}
