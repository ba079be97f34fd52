"""A template says what a page is; no text that is filled in can leave its place, and no field goes astray."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.formatting import printable
from tinygrad_chat.pages import Markup, escape, json_data, palettes, render, renderer, svg_style

HOSTILE = [
    "<script>alert(1)</script>",
    "</title></style></script><img src=x onerror=alert(1)>",
    "\" onload='alert(1)' x=\"",
    "{{ title }} {{# b }} {{> report.css }} {} {0} %s $title ${title}",
    "\\u003cscript\\u003e <!-- --> ]]> <![CDATA[",
    "&lt;b&gt; &amp;amp; &#60;",
]

Template = Callable[[str], Callable[..., Markup]]


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[Template]:
    """Make a template of a text; return what renders it."""

    def make(text: str) -> Callable[..., Markup]:
        original = renderer.read_file
        monkeypatch.setattr(renderer, "read_file", lambda name: text if name == "test.html" else original(name))
        renderer._load.cache_clear()
        return lambda **fields: render("test.html", **fields)

    yield make
    monkeypatch.undo()
    renderer._load.cache_clear()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_stays_a_text_in_an_element_and_in_an_attribute(template: Template, text: str):
    page = template("<p title=\"{{ a }}\" class='{{ a }}'>{{ a }}</p>")(a=text)
    element = ElementTree.fromstring(page)
    assert (element.attrib, element.text, list(element)) == ({"title": text, "class": text}, text, [])


@pytest.mark.profile("ci")
@given(st.text())
def test_whatever_a_text_is_its_characters_come_back_or_are_visible_escapes(text: str):
    escaped = escape(text)
    assert not set("<>\"'") & set(escaped)
    assert unescape(escaped) == printable(text)
    escaped.encode()
    assert ElementTree.fromstring(f"<p>{escaped}</p>").text == ("".join(unescape(escaped)) or None)


def test_halves_of_characters_and_control_characters_are_visible_escapes():
    assert escape("a\ud800b\x00\x1b[31m\x9b\ufffe") == r"a\ud800b\x00\x1b[31m\x9b\ufffe"


def test_markup_stands_as_it_is_and_what_is_made_of_it_is_a_text_again(template: Template):
    page = template("{{ a }}{{ b }}")
    assert page(a=Markup("<b>x</b>"), b="<b>") == "<b>x</b>&lt;b&gt;"
    for text in (Markup("<b>") + "<i>", "<i>" + Markup("<b>"), Markup("{}").format("<b>"), Markup("<b>").strip()):
        assert "<" not in page(a=text, b="")
    assert isinstance(page(a="", b=""), Markup)


def test_a_section_is_repeated_for_each_item_and_sees_that_item_alone(template: Template):
    page = template("<ul>\n  {{# items }}\n<li>{{ name }}{{# marks }}!{{/ marks }}</li>\n{{/ items }}\n</ul>")
    items = [{"name": "<a>", "marks": []}, {"name": "b", "marks": [{}, {}]}]
    assert page(items=items) == "<ul>\n<li>&lt;a&gt;</li>\n<li>b!!</li>\n</ul>"
    assert page(items=[]) == "<ul>\n</ul>"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"test.html: missing fields \['a', 'b'\], unknown fields \[\]"),
        ({"a": "", "b": [], "c": ""}, r"missing fields \[\], unknown fields \['c'\]"),
        ({"a": "", "b": [{}]}, r"test.html, section b: missing fields \['a'\]"),
        ({"a": "", "b": [{"a": "", "x": ""}]}, r"section b: missing fields \[\], unknown fields \['x'\]"),
        ({"a": None, "b": []}, "a: expected a text, received NoneType"),
        ({"a": 1, "b": []}, "a: expected a text, received int"),
        ({"a": [], "b": []}, "a: expected a text, received list"),
        ({"a": "", "b": "text"}, "b: expected a list of fields, received str"),
        ({"a": "", "b": True}, "b: expected a list of fields, received bool"),
    ],
)
def test_a_field_that_is_missing_unknown_or_of_the_wrong_kind_is_named(template: Template, fields: dict, message: str):
    with pytest.raises(TypeError, match=message):
        template("{{ a }}{{# b }}{{ a }}{{/ b }}")(**fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{# a }}", "section a does not end"),
        ("{{/ a }}", "ends no section"),
        ("{{# a }}{{# b }}{{/ a }}{{/ b }}", "ends no section"),
        ("{{a}}", "expected {{ name }}"),
        ("{{ a b }}", "expected {{ name }}"),
        ("<script>x = {{ a }}</script>", "a <script> takes no fields; hand it data in a <script type="),
    ],
)
def test_a_template_that_is_not_whole_is_refused(template: Template, text: str, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        template(text)(a="", b="")


@pytest.mark.parametrize("text", [*HOSTILE, "a\ud800"])
def test_json_in_a_page_is_the_value_and_cannot_end_its_element(text: str):
    data = json_data({"text": text})
    assert json.loads(data) == {"text": text}
    assert not set("<>&") & set(data)
    data.encode()


# --- the shipped files


FOLDER = Path(renderer.__file__).parent
FILES = sorted(
    path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in {".html", ".css", ".js"}
)
TEMPLATES = ["graph.html", "report.html"]


class Reader(HTMLParser):
    """Reads a page as a browser does: its policy, and the text of its styles and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.policy: dict[str, set[str]] = {}
        self.own: dict[str, list[str]] = {"style": [], "script": []}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert not [name for name in found if name.startswith("on") or name == "style"]  # no policy would allow them
        if found.get("http-equiv") == "Content-Security-Policy":
            for directive in (found["content"] or "").split("; "):
                name, *values = directive.split(" ")
                self.policy[name] = set(values)
        self._inside = tag if tag in self.own and not attrs else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.own[self._inside].append(data)


def page_of(name: str) -> str:
    """Return a shipped template with all of its sections left out and a text in each of its fields."""
    parts = [part for part in renderer._load(name) if not isinstance(part, str)]
    return render(name, **{part.name: [] if isinstance(part, renderer._Section) else "text" for part in parts})


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_page_s_policy_allows_its_own_style_and_script_and_nothing_else(name: str):
    reader = Reader(page_of(name))
    assert reader.policy["default-src"] == reader.policy["base-uri"] == reader.policy["form-action"] == {"'none'"}
    for element, contents in reader.own.items():
        hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents}
        assert reader.policy[f"{element}-src"] == {f"'sha256-{digest}'" for digest in hashes}
        assert len(hashes) == 1


def test_no_script_that_comes_in_by_a_field_is_allowed(template: Template):
    page = template(
        '<meta http-equiv="Content-Security-Policy" content="{{ content_security_policy }}"><script>own</script>{{ a }}'
    )
    assert len(Reader(page(a=Markup("<script>other</script>"))).policy["script-src"]) == 1


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_address_and_those_that_may_stand_in_xml_need_no_escaping(name: str):
    text = renderer.read_file(name)
    addresses = set(re.findall(r"\w+://[^\"'\s]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert not re.findall(r"@import|url\(|(?:inner|outer)HTML|insertAdjacent|document\.write|eval\(", text)
    assert name.endswith((".html", "graph.js")) or name.startswith("chat/") or not set("<&") & set(text)
    assert text.count("\n") <= 300


def test_the_page_of_the_server_has_no_style_or_script_of_its_own_and_names_files_that_there_are():
    page = renderer.read_file("chat.html")
    assert Reader(page).own == {"style": [], "script": []}
    named = re.findall(r'(?:src|href)="static/([^"]+)"', page)
    assert named == ["palette.css", "chat.css", "chat/theme.js", "chat/main.js"]
    modules = {f"chat/{name}" for file in FILES for name in re.findall(r'from "\./([^"]+)"', renderer.read_file(file))}
    assert {*named, *modules} <= set(FILES)
    assert {name for name in FILES if name.startswith("chat/")} == {"chat/main.js", "chat/theme.js", *modules}
    assert len(re.findall(r'(?:src|href)="', page)) == len(named) + 2  # an empty icon, and a link within the page


def test_a_picture_that_stands_alone_has_its_colours_written_out_in_both_schemes():
    for name in ("graph_svg.css", "chart_svg.css"):
        style = svg_style(name)
        assert "var(" not in style
        light, dark = style.split("@media (prefers-color-scheme: dark)")
        assert "#1f2328" in light
        assert "#e7e9ec" in dark
        assert light.count("{") == dark.count("{") - 1


def test_every_colour_that_is_used_is_in_the_palette_and_has_a_dark_one():
    light, dark = palettes()
    assert {name for name in light if light[name] == dark[name]} == {"font"}
    styles = "".join(renderer.read_file(name) for name in FILES if name.endswith(".css"))
    own = set(re.findall(r"--([\w-]+): ", styles))
    assert set(re.findall(r"var\(--([\w-]+)\)", styles)) <= light.keys() | own


def contrast(one: str, other: str) -> float:
    """Return how much two colours differ in brightness, as WCAG 2 counts it."""

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("text", ["text", "muted", "gradient"])
@pytest.mark.parametrize("ground", ["paper", "box"])
def test_texts_can_be_read_on_their_grounds_on_light_screens_and_on_dark_ones(text: str, ground: str):
    for palette in palettes():
        assert contrast(palette[text], palette[ground]) >= 4.5
