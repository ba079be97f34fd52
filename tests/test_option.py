"""Options: what a configuration refuses, and that it says which flag or key and why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pytest

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import checked_settings, flag_of, option, specs_of, validate


@dataclass(frozen=True, kw_only=True)
class Oven:
    """A configuration of every kind of option."""

    temperature: float = option(180.0, "degrees", minimum=50, below=300)
    trays_used: int = option(1, "trays", minimum=1)
    price: float | None = option(None, "what it costs", above=0, maximum=1e4)
    mode: str = option("fan", "how heat moves", choices=("fan", "grill"))
    light: bool = option(True, "see what happens")
    note: str = "no rules"

    def __post_init__(self) -> None:
        validate(self)


def test_flag_is_the_name_with_dashes():
    assert flag_of("trays_used") == "--trays-used"


def test_defaults_and_values_on_the_allowed_side_of_a_bound_pass():
    assert Oven().price is None
    assert Oven(temperature=50, trays_used=1, price=1e-9, mode="grill").mode == "grill"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 49.9}, "--temperature: expected at least 50, received 49.9"),
        ({"temperature": 300.0}, "--temperature: expected less than 300, received 300.0"),
        ({"temperature": math.nan}, "--temperature: expected a finite number, received nan"),
        ({"price": math.inf}, "--price: expected a finite number, received inf"),
        ({"price": 0.0}, "--price: expected more than 0, received 0.0"),
        ({"price": 1e5}, "--price: expected at most 10000.0, received 100000.0"),
        ({"trays_used": 2.5}, "--trays-used: expected int, received 2.5"),
        ({"trays_used": None}, "--trays-used: expected int, received None"),
        ({"trays_used": 0}, "--trays-used: expected at least 1, received 0"),
        ({"mode": "steam"}, "--mode: expected one of fan, grill, received 'steam'"),
    ],
)
def test_value_out_of_range_is_refused_by_its_flag(settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Oven(**settings)


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"trays-used": 2, "light": False}, {"trays_used": 2, "light": False}),
        ({"temperature": 200}, {"temperature": 200.0}),
        ({"price": 3, "mode": "grill"}, {"price": 3.0, "mode": "grill"}),
        ({"price": None}, {"price": None}),
        ({"note": "hot"}, {"note": "hot"}),
    ],
)
def test_settings_of_a_file_become_arguments_of_the_right_type(given, settings):
    checked = checked_settings(specs_of(Oven), given, source="oven.toml")
    assert checked == settings
    assert [type(value) for value in checked.values()] == [type(value) for value in settings.values()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trays-usde": 2}, "oven.toml: unknown key 'trays-usde'; did you mean trays_used?"),
        ({"colour": "red"}, "oven.toml: unknown key 'colour'; there is no option --colour"),
        ({"trays-used": 2.0}, "oven.toml: trays-used: expected int, received 2.0"),
        ({"trays_used": True}, "oven.toml: trays_used: expected int, received True"),
        ({"trays_used": None}, "oven.toml: trays_used: expected int, received None"),
        ({"temperature": "hot"}, "oven.toml: temperature: expected float, received 'hot'"),
        ({"temperature": True}, "oven.toml: temperature: expected float, received True"),
        ({"price": "dear"}, "oven.toml: price: expected float, received 'dear'"),
        ({"light": 1}, "oven.toml: light: expected bool, received 1"),
        ({"mode": ["fan"]}, "oven.toml: mode: expected str, received ['fan']"),
    ],
)
def test_unknown_key_or_wrong_type_is_refused_by_file_and_key(given: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        checked_settings(specs_of(Oven), given, source="oven.toml")
