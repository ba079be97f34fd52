"""Command-line flags, read off a configuration dataclass, so that they are stated once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tinygrad_chat.option import flag_of

_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


def flags_of(config: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command a flag for each option of `config`: in `**settings` it finds those that the user gave."""
    flags = [_flag(field) for field in dataclasses.fields(config)]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        names = {field.name for field in dataclasses.fields(config)}

        def with_flags(**given: Any) -> Any:
            settings = {name: given.pop(name) for name in names if name in given}
            return command(**given, **{name: value for name, value in settings.items() if value is not None})

        with_flags.__name__ = command.__name__
        with_flags.__doc__ = command.__doc__
        with_flags.__signature__ = inspect.Signature([*own, *flags])
        with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *flags]}
        return with_flags

    return decorate


def _flag(field: dataclasses.Field[Any]) -> inspect.Parameter:
    kind = _TYPES[str(field.type).removesuffix(" | None")]
    rules = field.metadata
    spelling = flag_of(field.name)
    names = (f"{spelling}/--no-{spelling[2:]}",) if kind is bool else (spelling, *rules["flags"])
    shown = field.default if kind is not bool else ("on" if field.default else "off")
    default = "" if shown in (None, "") else f" (default {shown})"
    option = typer.Option(
        *names,
        help=rules["help"] + default,
        metavar="|".join(rules["choices"]) or None,
        rich_help_panel=rules["group"],
    )
    annotation = Annotated[kind | None, option]  # None: not given, so a file or the default decides
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
