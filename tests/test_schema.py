"""Files by their types: what does not fit is named by file and key, in one short line, in little time and memory."""

from __future__ import annotations

import gc
import json
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import FormatError
from tinygrad_chat.schema import (
    OPTIONAL,
    Amount,
    Bounds,
    Count,
    checked,
    parse_json,
    parse_lines,
    parse_toml,
    read_json,
)


@dataclass(frozen=True)
class Wheel:
    """A part of a vehicle."""

    radius: Annotated[float, Bounds(minimum=0.1, maximum=2)]
    spokes: Count = field(default=8, metadata=OPTIONAL)


class Vehicle(TypedDict):
    """What every vehicle states."""

    name: str
    wheels: list[Wheel]


class Bicycle(Vehicle, total=False):
    """And what some do."""

    brake: Literal["rim", "disc"]
    weight: Amount | None
    price: float
    sold: bool
    sizes: tuple[int, ...]
    owners: dict[str, int]
    extra: Any


WHOLE: dict[str, Any] = {
    "name": "Ä\n\N{GRINNING FACE}",
    "wheels": [{"radius": 0.3}, {"radius": 1, "spokes": 0}],
    "brake": "rim",
    "weight": None,
    "price": -3,
    "sold": True,
    "sizes": [1, 2],
    "owners": {"a": 1},
    "extra": {"of": ["any", {"form": None}]},
    "unknown": [1.5],
}


def test_what_fits_comes_back_as_its_type():
    bicycle = parse_json(json.dumps(WHOLE), Bicycle, source="x")
    assert bicycle == {**WHOLE, "wheels": [Wheel(0.3, 8), Wheel(1.0, 0)], "sizes": (1, 2)}
    assert isinstance(bicycle.get("price"), float)
    assert isinstance(bicycle["wheels"][1].radius, float)


def test_a_dataclass_leaves_out_keys_that_it_does_not_know():
    assert checked({"radius": 1, "tyre": "wide"}, Wheel, source="x") == Wheel(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name: expected a string, received 3"),
        ({"name": None}, "name: expected a string, received null"),
        ({"name": "\ud800"}, r"name: expected text in UTF-8, received '\ud800'"),
        ({"wheels": {}}, "wheels: expected a list, received an empty object"),
        ({"wheels": [[]]}, "wheels[0]: expected an object, received an empty list"),
        ({"wheels": [{}]}, "wheels[0]: has no radius"),
        ({"wheels": [{"radius": 0}]}, "wheels[0].radius: expected at least 0.1, received 0.0"),
        ({"wheels": [{"radius": 1e299}]}, "wheels[0].radius: expected at most 2, received 1e+299"),
        ({"wheels": [{"radius": 1, "spokes": -1}]}, "wheels[0].spokes: expected at least 0, received -1"),
        ({"wheels": [{"radius": 1, "spokes": 2.0}]}, "wheels[0].spokes: expected a whole number, received 2.0"),
        ({"wheels": [{"radius": 1, "spokes": True}]}, "wheels[0].spokes: expected a whole number, received true"),
        (
            {"wheels": [{"radius": 1, "spokes": 2**63}]},
            "wheels[0].spokes: expected at most 9007199254740992, received 9223372036854775808",
        ),
        ({"brake": "foot"}, "brake: expected rim or disc, received 'foot'"),
        ({"brake": ["rim"]}, "brake: expected rim or disc, received a list"),
        ({"weight": -1.0}, "weight: expected at least 0 or null, received -1.0"),
        ({"weight": float("nan")}, "weight: expected a finite number or null, received nan"),
        ({"price": float("inf")}, "price: expected a finite number, received inf"),
        ({"price": 2**63}, "price: expected at most 9007199254740992, received 9223372036854775808"),
        ({"sold": 1}, "sold: expected true or false, received 1"),
        ({"owners": []}, "owners: expected an object, received an empty list"),
        ({"owners": {"a b": "c"}}, "owners.'a b': expected a whole number, received 'c'"),
        ({"owners": {"\ud800": 1}}, r"owners: expected text in UTF-8, received '\ud800'"),
        ({"extra": {"of": [float("nan")]}}, "extra.of[0]: expected a finite number, received nan"),
        ({"unknown": 2**60}, "unknown: expected at most 9007199254740992, received 1152921504606846976"),
        ({"x" * 10_000: "\ud800" * 10_000}, None),
    ],
)
def test_what_does_not_fit_is_named_by_file_and_key_in_one_short_line(change: dict[str, Any], message: str | None):
    with pytest.raises(FormatError) as caught:
        parse_json(json.dumps({**WHOLE, **change}), Bicycle, source="bicycle.json")
    said = str(caught.value)
    assert message is None or said == f"bicycle.json: {message}"
    assert "\n" not in said
    assert len(said) < 250


@pytest.mark.parametrize("text", ["", "{", "{]}", "\ud800", '{"name": NaN}', "nul", b"\xff\xfe", b"\x00\xd8", b"\x80"])
def test_what_is_no_json_is_refused(text: str | bytes):
    with pytest.raises(FormatError, match=r"^x: "):
        parse_json(text, Bicycle, source="x")


@pytest.mark.parametrize("depth", [18, 950, 100_000])
@pytest.mark.parametrize(("opens", "closes"), ["[]", ('{"a":', "}")])
def test_nesting_has_an_end(opens: str, closes: str, depth: int):
    with pytest.raises(FormatError, match=r"^x: .*is nested"):
        parse_json(opens * depth + "0" + closes * depth, list[Any] if opens == "[" else dict[str, Any], source="x")


def test_a_number_of_many_digits_is_refused_whatever_python_allows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.set_int_max_str_digits", None)
    for digits in ("1" * 21, "-" + "1" * 5000):
        with pytest.raises(FormatError, match=rf"^x: not valid JSON \(a number of {len(digits):,} digits\)$"):
            parse_json(f"[{digits}]", list[Any], source="x")


def test_objects_that_would_fill_the_memory_are_refused_before_they_are_made():
    for inner in ("[],", "{},"):
        with pytest.raises(FormatError, match=r"^x: expected at most 524,288 objects and lists, received more$"):
            parse_json("[" + inner * (1 << 19) + "0]", list[Any], source="x")


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps("a" * 100))
    assert read_json(path, str, most=102) == "a" * 100
    with pytest.raises(OSError, match="more than there is room for"):
        read_json(path, str, most=101)


def test_a_line_that_does_not_fit_hides_no_other():
    content = b'{"radius": 1}\n{"radius": 9}\n[[\n\n{"radius": 2}\n{"rad'
    lines = list(parse_lines(content.splitlines(), Wheel, source="x"))
    assert [line for line, _ in lines] == content.split(b"\n")
    assert [found for _, found in lines if isinstance(found, Wheel)] == [Wheel(1), Wheel(2)]
    assert [str(found)[:11] for _, found in lines if not isinstance(found, Wheel)] == [
        "x, line 2: ",
        "x, line 3: ",
        "x, line 4: ",
        "x, line 6: ",
    ]


TEXTS_IN_TOML = [
    'a = "x.x.x.x.x.x.x.x.x.x.x.x"',
    "a = 'x.x.x.x.x.x.x.x.x.x.x.x'",
    'a = "x\\"x.x.x.x.x.x.x.x.x.x.x.x"',
    '# x.x.x.x.x.x.x.x.x.x.x.x\na = "b"',
    'a = """\nx.x.x.x.x.x.x.x.x.x.x.x\n"""',
    "a = '''\nx.x.x.x.x.x.x.x.x.x.x.x\n'''",
    'a = ["../x", "x.x.x.x.x.x.x.x.x.x.x.x"]',
    "a.b.c.d.e.f.g.h = 1",
]


@pytest.mark.parametrize("text", TEXTS_IN_TOML)
def test_toml_of_ordinary_keys_is_read_whatever_stands_in_its_texts(text: str):
    assert "a" in parse_toml(text, source="x")


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 1000) + " = 1",
        "a . b . c . d . e . f . g . h . i = 1",
        '"a".b."c".d."e".f.\'g\'.h.i = 1',
        "[" + ".".join(["a"] * 1000) + "]",
        "a = {" + ".".join(["a"] * 1000) + " = 1}",
        '# x"\n' + ".".join(["a"] * 1000) + " = 1",
    ],
)
def test_toml_of_long_keys_is_refused_unread(text: str):
    """With 50,000 parts tomllib takes 45 s, and four times as long for twice as many."""
    with pytest.raises(FormatError, match=r"^x: expected keys of at most 8 parts, received a longer one$"):
        parse_toml(text, source="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "1" * 5000, "x: a number has too many digits"),
        ("a = " + "[" * 100_000, "x: is nested too deeply"),
        ("a = " + "{a=" * 2000, "x: is nested too deeply"),
        ("a = ", "x: not valid TOML (Invalid value (at end of document))"),
        ("a" * (1 << 20) + " = 1", "x: expected at most 1,048,576 characters, received 1,048,580"),
    ],
    ids=range(5),
)
def test_toml_that_cannot_be_is_refused(text: str, message: str):
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        parse_toml(text, source="x")


def refusal_of(read: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    try:
        read(*arguments, **named)
    except FormatError as error:
        return str(error)
    return ""


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*WHOLE, "radius"]), inner, max_size=4),
)


@given(anything)
def test_whatever_comes_it_fits_or_is_refused_in_one_line(value: Any):
    kinds: list[Any] = [Bicycle, Wheel, Any, dict[str, list[Wheel]], Literal["a", 1], int | str | None]
    for kind in kinds:
        said = refusal_of(parse_json, json.dumps(value), kind, source="x")
        assert said == "" or re.fullmatch(r"x: .{,300}", said)


@pytest.mark.profile("ci")
@given(st.text() | st.text("[]{}.\"'#=\\\na1 ", max_size=200))
def test_whatever_toml_comes_it_is_read_or_refused(text: str):
    said = refusal_of(parse_toml, text, source="x")
    assert said == "" or re.fullmatch(r"x: .{,300}", said)


@pytest.mark.parametrize(
    "read",
    [
        lambda: checked({"name": "", "wheels": [], "weight": None}, Bicycle, source="x"),
        lambda: list(parse_lines([b'{"radius": 1}', b'{"radius": 9}', b"[["], Wheel, source="x")),
        lambda: refusal_of(checked, {"name": "", "wheels": [], "weight": {}}, Bicycle, source="x"),
    ],
    ids=["a union", "lines", "a refusal"],
)
def test_what_did_not_fit_keeps_nothing_of_its_caller(read: Callable[[], object]):
    """An exception holds the frames that it passed through, and so an open file, where it is held by one of them."""

    class Resource:
        pass

    def caller() -> weakref.ref[Resource]:
        resource = Resource()
        kept = read()
        assert kept is not None
        return weakref.ref(resource)

    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()
