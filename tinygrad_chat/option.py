"""How a configuration states its options: default, help text and what is allowed, once, beside the name.

Command-line flags, TOML files and the configuration saved with a run are all read off such a dataclass.
Standard library only, so that `tgc --help` stays fast.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from tinygrad_chat.errors import ConfigError

LARGEST = 2**53  # integers that a float holds exactly


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    flags: tuple[str, ...] = (),
    group: str = "Model",
    fixed: bool = True,
) -> Any:
    """Return a dataclass field: its default, its help text and what values it takes.

    `minimum` is the least value allowed, `above` and `below` bounds that are not. `flags` are command-line spellings
    beside the one made from the name, `group` the heading it stands under in the help. A `fixed` option cannot be
    changed when a run is resumed.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "above": above,
        "below": below,
        "flags": flags,
        "group": group,
        "fixed": fixed,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """Return the command-line spelling of an option: batch_size is --batch-size."""
    return "--" + name.replace("_", "-")


def validate(config: Any) -> None:
    """Raise ConfigError, naming the flag, for the first value of a dataclass that its option does not allow."""
    for field in dataclasses.fields(config):
        _expect_allowed(field, getattr(config, field.name))


def validate_settings(kind: type[Any], settings: Mapping[str, Any]) -> None:
    """Do as `validate` for `settings`, some of the options of the dataclass `kind`."""
    for field in dataclasses.fields(kind):
        _expect_allowed(field, settings.get(field.name))


def _expect_allowed(field: dataclasses.Field[Any], value: Any) -> None:
    rules, expected = field.metadata, None
    if value is None or not rules:
        return
    if rules["choices"] and value not in rules["choices"]:
        expected = f"one of {', '.join(rules['choices'])}"
    elif isinstance(value, float) and not math.isfinite(value):
        expected = "a finite number"
    elif isinstance(value, int) and abs(value) > LARGEST:
        expected = f"at most {LARGEST}"
    elif rules["minimum"] is not None and value < rules["minimum"]:
        expected = f"at least {rules['minimum']}"
    elif rules["above"] is not None and value <= rules["above"]:
        expected = f"more than {rules['above']}"
    elif rules["below"] is not None and value >= rules["below"]:
        expected = f"less than {rules['below']}"
    if expected:
        raise ConfigError(f"{flag_of(field.name)}: expected {expected}, received {value!r}")


def checked_settings(kind: type[Any], settings: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Return `settings`, such as a TOML file's, as keyword arguments for `kind`.

    Raises ConfigError, naming `source` and the key, for an unknown key or a value of the wrong type.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}
    checked = {}
    for key, value in settings.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has no option {flag_of(name)}"
            raise ConfigError(f"{source}: unknown key {key!r}; {hint}")
        checked[name] = _converted(value, str(known[name].type), f"{source}: {key}")
    return checked


def _converted(value: Any, annotation: str, where: str) -> Any:
    wanted = annotation.removesuffix(" | None")
    if value is None and wanted != annotation:
        return None
    if wanted == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(min(max(value, -LARGEST), LARGEST))
    if type(value).__name__ != wanted:
        raise ConfigError(f"{where}: expected {wanted}, received {value!r}")
    return value
