"""Command-line flags derived from option groups, so that each option is declared only once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from tinygrad_chat.option import OptionSpec, specs_of

ConfigFile = Annotated[
    str | None,
    typer.Option("--config", "--preset", help="a TOML file or a preset's name to start from", rich_help_panel="Run"),
]
"""Taken by every command that resolves a run's configuration."""

Raw = Annotated[
    bool,
    typer.Option("--raw", help="leave control characters as they are, in a pipe or file", rich_help_panel="Run"),
]
"""Taken by commands that print text from a model or a tokenizer; see `streams.stream_of_texts`."""

Confirmed = Annotated[
    bool,
    typer.Option("--yes", help="continue even if scalar steps will take minutes", rich_help_panel="Run", hidden=True),
]


def flags_of(
    *groups: type[Any],
    short: bool = True,
    only: Collection[str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command a flag for each option of the groups; those that the user gave arrive in `**settings`.

    `only` restricts the flags to these names. With `short`, --help shows the common flags and --help-all shows all.
    `defaults` replaces the default shown in the help, for options whose default is the command's own.
    """
    specs = {name: spec for name, spec in specs_of(*groups).items() if only is None or name in only}
    flags = [
        _flag(spec, hidden=short and not spec.common, default=(defaults or {}).get(spec.name))
        for spec in specs.values()
    ]
    flags += [_HELP_ALL] if short else []

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        own = own if short else list(map(_shown, own))

        def with_flags(**given: Any) -> Any:
            given.pop(_HELP_ALL.name, None)
            settings = {name: given.pop(name) for name in specs if name in given}
            chosen = {name: value for name, value in settings.items() if value not in (None, [])}
            several = {
                name: specs[name].convert(value, specs[name].flag)
                for name, value in chosen.items()
                if specs[name].several
            }
            return command(**given, **{**chosen, **several})

        with_flags.__name__ = command.__name__
        with_flags.__doc__ = command.__doc__
        with_flags.__signature__ = inspect.Signature([*own, *flags])
        with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *flags]}
        return with_flags

    return decorate


def _shown(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a flag for a command without --help-all: visible if it has a help text."""
    option = next((copy.copy(each) for each in get_args(parameter.annotation) if isinstance(each, OptionInfo)), None)
    if option is None or option.help is None:
        return parameter
    option.hidden = False
    return parameter.replace(annotation=Annotated[get_args(parameter.annotation)[0], option])


def _flag(spec: OptionSpec, *, hidden: bool, default: str | None) -> inspect.Parameter:
    spellings = (spec.flag, *spec.flags, *(f"--{name.replace('_', '-')}" for name in spec.formerly))
    names = (f"{spec.flag}/--no-{spec.flag[2:]}",) if spec.kind is bool else spellings
    shown = spec.default if spec.kind is not bool else ("on" if spec.default else "off")
    shown = shown if default is None else default
    option = typer.Option(
        *names,
        help=spec.help + ("" if shown in (None, "") else f" (default {shown})"),
        metavar=metavar_of(spec),
        autocompletion=(lambda: list(spec.choices)) if spec.choices else None,
        rich_help_panel=_panel(spec),
        hidden=hidden,
    )
    kind: Any = list[spec.kind] if spec.several else spec.kind
    annotation = Annotated[kind | None, option]  # None: not given, so a file or the default decides
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def metavar_of(spec: OptionSpec) -> str | None:
    """Return the placeholder for an option's value in the help: its choices, or None where its type is enough."""
    return "|".join((*spec.choices, *["PATH"] * spec.others)) or (f"<{spec.kind.__name__}>" if spec.several else None)


_PANELS = {
    "Recipe": "Model",
    "Optimizer": "Training",
    "Schedule": "Training",
    "TrainingCompute": "Run",
    "Guard": "Run",
    "Inference": "Run",
}


def _panel(spec: OptionSpec) -> str:
    """Return an option's heading in the help. Some groups share one, so that the help fits on a screen."""
    group = spec.group.__name__.removesuffix("Options")
    return _PANELS.get(group, group)


def _show_all(context: typer.Context, wanted: bool) -> None:
    if not wanted:
        return
    for parameter in context.command.params:
        parameter.hidden = not getattr(parameter, "help", None)  # pyright: ignore[reportAttributeAccessIssue]
    print(context.get_help())
    raise typer.Exit


_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option("--help-all", callback=_show_all, is_eager=True, help="Show all options and exit."),
    ],
)
