"""The sampling settings in another program's files, which become our defaults for its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat.errors import ConfigError, FormatError
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.interchange.chats import Say
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.schema import checked

GGUF_KEYS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
"""GGUF's names."""
DIGITS = 6  # decimal places that a float32 keeps of such a number


def sampling_of_huggingface(content: Mapping[str, Any], source: str, *, say: Say) -> Sampling:
    """Return the settings of a generation_config.json. If they are invalid, `say` reports it, and all are ignored."""
    if content.get("do_sample") is False:
        return Sampling(temperature=0.0)
    return _checked({name: content.get(name) for name in GGUF_KEYS}, source, say)


def sampling_of_gguf(settings: Mapping[str, Any], source: str, *, say: Say) -> Sampling:
    """Return the settings of a GGUF file, like `sampling_of_huggingface`."""
    found = {name: settings.get(key) for name, key in GGUF_KEYS.items()}
    return _checked(
        {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in found.items()},
        source,
        say,
    )


def _checked(found: dict[str, Any], source: str, say: Say) -> Sampling:
    for name in ("top_k", "min_p"):  # other programs write 0 or less for "off"
        if isinstance(found[name], int | float) and found[name] <= 0:
            found[name] = None
    try:
        sampling = checked(found, Sampling, source=source)
        GenerationOptions(**sampling.settings())
    except (ConfigError, FormatError) as error:
        reason = str(error).removeprefix(f"{source}: ")
        say(f"{source}: {reason}; its sampling settings are ignored")
        return Sampling()
    return sampling


def huggingface_sampling(sampling: Sampling) -> dict[str, Any]:
    """Return it as settings of a generation_config.json, where sampling has to be turned on by `do_sample`."""
    settings = sampling.settings()
    if settings.get("temperature") == 0:
        return {"do_sample": False}
    return {"do_sample": True, **settings} if settings else {}


def gguf_sampling(sampling: Sampling) -> dict[str, Any]:
    """Return it as settings of a GGUF file."""
    return {
        GGUF_KEYS[name]: np.int32(value) if isinstance(value, int) else float(value)
        for name, value in sampling.settings().items()
    }
