"""Configurations on disk: TOML files, and the presets shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from tinygrad_chat import schema
from tinygrad_chat.config.record import flat_settings, from_saved
from tinygrad_chat.errors import ConfigError, FormatError
from tinygrad_chat.files import UnfitFileError, read_plain, user_path
from tinygrad_chat.formatting import NOT_PRINTABLE
from tinygrad_chat.schema import LARGEST_FILE

SAVED_BY_VERSION_0_1 = {"accumulate", "keep", "max_memory_growth"}
"""Flat keys that together identify a run's own config.toml, which also holds settings without effect."""

PRESETS = resources.files("tinygrad_chat.config") / "presets"


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    return sorted(file.name.removesuffix(".toml") for file in PRESETS.iterdir() if file.name.endswith(".toml"))


def read_settings(name: str) -> dict[str, Any]:
    """Return the settings of the TOML file `name` or, if there is none, of the preset `name`, by their flat names.

    Raises ConfigError if there is neither, or if it contains an invalid setting.
    """
    try:
        content = read_plain(user_path(name), most=LARGEST_FILE, follow=True)
        text = content.decode("utf-8-sig")  # Notepad begins a file with a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        if name not in preset_names() or not isinstance(error, FileNotFoundError | UnfitFileError):
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"--config {name}: expected a TOML file or one of the presets {', '.join(preset_names())} ({reason})"
            ) from error
        text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    source = f"--config {name}"
    content = parse_toml(text, source=source)
    if content.keys() >= SAVED_BY_VERSION_0_1:
        return from_saved(content, source=source).used_settings()
    return flat_settings(content, source=source)


def parse_settings(text: str, *, source: str) -> dict[str, Any]:
    """Return the settings in TOML `text`. Raises ConfigError, naming `source`, if it is invalid."""
    return flat_settings(parse_toml(text, source=source), source=source)


def parse_toml(text: str, *, source: str) -> dict[str, Any]:
    """Return the content of TOML `text`. Raises ConfigError, naming `source`, where `schema.parse_toml` raises
    FormatError."""
    try:
        return schema.parse_toml(text, source=source)
    except FormatError as error:
        raise ConfigError(str(error)) from error


def to_toml(settings: Mapping[str, Any]) -> str:
    """Return settings as TOML. Control characters, for example in a file name, are written as TOML escapes, so that
    the text is safe to print in a terminal."""
    import tomli_w  # only here: a bare checkout on a borrowed machine measures without it

    return NOT_PRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", tomli_w.dumps(settings))
