"""How an option is declared, as a dataclass field: default, help text, bounds and dependencies, each stated once.

Command-line flags, TOML files and the configuration saved with a run all derive from such dataclasses, called groups:
`specs_of` turns each field into an `OptionSpec`, once. Standard library only, so that `tgc --help` stays fast.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.formatting import short_repr

LARGEST = 2**53  # up to which a float holds every integer exactly


@dataclass(frozen=True)
class Needs:
    """A condition for an option to have an effect: option `name` has one of `values` or, without values, is given."""

    name: str
    values: tuple[Any, ...]


def needs(name: str, *values: Any) -> Needs:
    """Return what an option requires of another: `needs("optimizer", "adamw")`, or `needs("start_from")`."""
    return Needs(name, values)


@dataclass(frozen=True)
class OptionSpec:
    """Everything known about one option.

    `name` is unique among the options of a command and is the key in a flat file; `field` is the attribute in its group
    and the key in a TOML table. `kind` is int, float, str or bool; an `optional` option may also be None.
    """

    name: str
    field: str
    group: type[Any]
    kind: type
    optional: bool
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    flags: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()
    common: bool = False
    fixed: bool = True
    several: bool = False
    others: bool = False
    needs: tuple[Needs, ...] = ()

    @property
    def flag(self) -> str:
        """The command-line spelling: batch_size is --batch-size."""
        return flag_of(self.name)

    def check(self, value: Any) -> None:
        """Raise ConfigError, naming the flag, for a value that the option does not allow."""
        value = self.convert(value, self.flag)
        values: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        if not values:
            raise ConfigError(f"{self.flag}: expected at least one, received none")
        bounds = {"minimum": self.minimum, "maximum": self.maximum, "above": self.above, "below": self.below}
        for each in values:
            if each is not None:
                expect(self.flag, each, choices=() if self.others else self.choices, **bounds)
            if isinstance(each, str) and "\0" in each:
                raise ConfigError(f"{self.flag}: expected a path without NUL, received {short_repr(each)}")

    def convert(self, value: Any, where: str) -> Any:
        """Convert a value, also one from a file or from NumPy, to the option's type.

        Raises ConfigError, naming `where` it came from, for a value of another type.
        """
        if value is None and self.optional:
            return None
        if self.several and isinstance(value, list | tuple):
            values = [self._convert_one(each, where) for each in value]
            return values[0] if len(values) == 1 else tuple(values)
        return self._convert_one(value, where)

    def _convert_one(self, value: Any, where: str) -> Any:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):  # Python's or NumPy's
            if self.kind is int:
                return int(value)
            if self.kind is float:
                return float(min(max(int(value), -LARGEST), LARGEST))
        elif isinstance(value, numbers.Real) and self.kind is float and not isinstance(value, bool):
            return float(value)
        if type(value) is not self.kind:
            raise ConfigError(f"{where}: expected {self.kind.__name__}, received {short_repr(value)}")
        return value


def expect(
    what: str,
    value: Any,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ConfigError, saying `what` the value is, if it is not finite or not within these bounds."""
    expected = unmet(value, choices=choices, minimum=minimum, maximum=maximum, above=above, below=below)
    if expected:
        raise ConfigError(f"{what}: expected {expected}, received {short_repr(value)}")


def unmet(
    value: Any,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> str | None:
    """Return the first expectation that a value does not meet, in words, or None if it meets them all.

    Every number must be finite, and every text must be encodable in UTF-8.
    """
    expected = None
    if choices and value not in choices:
        expected = f"one of {', '.join(choices)}"
    elif not _can_be_written(value):
        expected = "text in UTF-8"
    elif not _is_finite(value):
        expected = "a finite number"
    elif isinstance(value, int) and abs(value) > LARGEST:
        expected = f"at most {LARGEST}"
    elif minimum is not None and value < minimum:
        expected = f"at least {minimum}"
    elif maximum is not None and value > maximum:
        expected = f"at most {maximum}"
    elif above is not None and value <= above:
        expected = f"more than {above}"
    elif below is not None and value >= below:
        expected = f"less than {below}"
    return expected


def _can_be_written(value: Any) -> bool:
    """Return whether a value can be encoded in UTF-8: a file name in another encoding cannot."""
    if not isinstance(value, str):
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_finite(value: Any) -> bool:
    if value is None or isinstance(value, str | int):
        return True
    return bool(value - value == 0)  # False for nan and infinities, NumPy's included


def option(
    default: Any,
    help: str,
    *,
    name: str | None = None,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    flags: tuple[str, ...] = (),
    formerly: tuple[str, ...] = (),
    common: bool = False,
    fixed: bool = True,
    several: bool = False,
    others: bool = False,
    needs: Needs | tuple[Needs, ...] = (),
) -> Any:
    """Return a dataclass field that declares an option: its default, help text and allowed values.

    `name` is the name of the flag, if it differs from the field's. `minimum` and `maximum` are inclusive bounds,
    `above` and `below` exclusive ones. `flags` are further command-line spellings; `formerly` are names from older
    versions, which files and flags still accept. A `common` option appears in the short help. A `fixed` one cannot be
    changed when a run is resumed. One that is given `several` times has a tuple of values. With `others`, values
    outside the choices are allowed, such as the path of a file. `needs` are the values of other options without which
    this one has no effect.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    metadata["needs"] = (needs,) if isinstance(needs, Needs) else needs
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """Return the command-line spelling of an option: batch_size is --batch-size."""
    return "--" + name.replace("_", "-")


@functools.cache
def specs_of(*groups: type[Any]) -> dict[str, OptionSpec]:
    """Return every option of the groups by its name, in order of definition."""
    specs = {}
    for group in groups:
        hints = typing.get_type_hints(group)
        for field in dataclasses.fields(group):
            kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
            stated = {**field.metadata, "name": field.metadata.get("name") or field.name}
            spec = OptionSpec(
                field=field.name,
                group=group,
                kind=next(kind for kind in kinds if kind is not types.NoneType),
                optional=types.NoneType in kinds,
                default=field.default,
                **{"help": "", **stated},
            )
            specs[spec.name] = spec
    return specs


def validate(group: Any) -> None:
    """Raise ConfigError, naming the flag, for the first value of a group that its option does not allow."""
    for spec in specs_of(type(group)).values():
        spec.check(getattr(group, spec.field))


def validate_settings(specs: Mapping[str, OptionSpec], settings: Mapping[str, Any]) -> None:
    """Do what `validate` does, for `settings`: some of the options, by name."""
    for name, value in settings.items():
        specs[name].check(value)


def by_every_name(specs: Mapping[str, OptionSpec]) -> dict[str, OptionSpec]:
    """Return the options keyed by their names, those from older versions included."""
    return {name: spec for spec in specs.values() for name in (spec.name, *spec.formerly)}


def checked_settings(specs: Mapping[str, OptionSpec], settings: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Return `settings`, such as those of a flat TOML file, under the options' names and converted to their types.

    Raises ConfigError, naming `source` and the key, for an unknown key or a value of the wrong type.
    """
    known = by_every_name(specs)
    checked = {}
    for key, value in settings.items():
        spec = known.get(key.replace("-", "_"))
        if spec is None:
            raise unknown_key(source, key, known)
        checked[spec.name] = spec.convert(value, f"{source}: {key}")
    return checked


def unknown_key(source: str, key: str, known: Iterable[str], *, remedy: str | None = None) -> ConfigError:
    """Return the error for an unknown key, suggesting the closest known one, or else the `remedy`."""
    name = key.replace("-", "_")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else remedy or f"there is no option {flag_of(name)}"
    return ConfigError(f"{source}: unknown key {short_repr(key)}; {hint}")


def refuse_ineffective(specs: Mapping[str, OptionSpec], chosen: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first option in `chosen`, by name, that has no effect under all the `settings`."""
    for name in chosen:
        need = unmet_need(specs[name], settings)
        if need is not None and need.values in ((True,), ()):
            other = specs[need.name]
            shortest = min((other.flag, *other.flags), key=len)  # --from, and not --start-from
            raise ConfigError(f"{specs[name].flag}: has no effect without {shortest}")
        if need is not None:
            values = ", ".join(value if isinstance(value, str) else f"{value}".lower() for value in need.values)
            raise ConfigError(
                f"{specs[name].flag}: has no effect with {flag_of(need.name)} {settings[need.name]}; "
                f"it needs {flag_of(need.name)} {values}"
            )


def unmet_need(spec: OptionSpec, settings: Mapping[str, Any]) -> Needs | None:
    """Return the first need of an option that the `settings` do not meet, or None if it has an effect."""
    return next((need for need in spec.needs if not _is_met(need, settings[need.name])), None)


def _is_met(need: Needs, value: Any) -> bool:
    return value in need.values if need.values else value is not None
