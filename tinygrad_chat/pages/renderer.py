"""A template renderer: Mustache's variables, sections and partials, and nothing else.

    {{ name }}                         a text, escaped; or Markup, verbatim
    {{# names }} ... {{/ names }}      the content, repeated for each item of a list of fields
    {{> report.css }}                  another file of this folder, verbatim

A section sees only the fields of its item. A conditional part is a section with a list of one item or none.
{{ content_security_policy }} is filled in by the renderer: it allows the template's own <style> and <script>, by their
hashes, and forbids everything else that a page could load or run. A page that needs more adds it after a semicolon.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tinygrad_chat.formatting import printable

Fields = Mapping[str, "str | Sequence[Fields]"]

_TAG = re.compile(r"\{\{([#/]?) (\w+) \}\}")
_TAG_ALONE_IN_ITS_LINE = re.compile(r"^[ \t]*(\{\{[#/] \w+ \}\})[ \t]*\n", re.MULTILINE)
_PARTIAL = re.compile(r"\{\{> ([\w.]+) \}\}\n?")
_OWN_ELEMENT = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
_POLICY = "{{ content_security_policy }}"


class Markup(str):
    """HTML or SVG that is inserted unescaped: from this renderer or our drawings, never from a file of a run.

    Any string derived from it, by + or format, is plain text again, and is escaped.
    """

    __slots__ = ()


def escape(text: str) -> Markup:
    """Escape a text for HTML and XML, in an element or in a quoted attribute; return Markup unchanged.

    >>> escape('<b> & "c"'), escape(Markup("<b>"))
    ('&lt;b&gt; &amp; &quot;c&quot;', '<b>')
    """
    return text if isinstance(text, Markup) else Markup(html.escape(printable(text)))


def json_data(value: Any) -> Markup:
    """Return a value as JSON for a `<script type="application/json">`, with no text that could end the element.

    >>> json_data(["</script>"])
    '["\\\\u003c/script\\\\u003e"]'
    """
    text = json.dumps(value, allow_nan=False)
    return Markup(re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text))


def render(template: str, /, **fields: str | Sequence[Fields]) -> Markup:
    """Return a template of this folder with its fields filled in.

    Raises TypeError, which names the fields, if some are missing, unknown to the template, or neither a text nor a list
    of fields: these are errors of the program, not of its user.
    """
    return Markup(_fill(template, "", _load(template), fields))


def read_file(name: str) -> str:
    """Return the text of a file of this folder."""
    return (resources.files("tinygrad_chat.pages") / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class _Variable:
    name: str


@dataclass(frozen=True)
class _Section:
    name: str
    parts: list[_Part]


_Part = str | _Variable | _Section


@functools.cache
def _load(template: str) -> list[_Part]:
    """Return a template's parts, with its partials and its policy in place."""
    text = _PARTIAL.sub(lambda match: read_file(match[1]), read_file(template))
    for element, content in _OWN_ELEMENT.findall(text):
        if "{{" in content:  # its hash would not match the filled-in text
            raise ValueError(
                f'{template}: a <{element}> takes no fields; hand it data in a <script type="application/json">'
            )
    return parse(text.replace(_POLICY, content_security_policy(text)), template)


def parse(text: str, template: str) -> list[_Part]:
    """Parse a template's text into parts. Raises ValueError, which names the `template`, for an unclosed section.

    >>> parse("<p>{{ a }}</p>{{# b }}{{ c }}{{/ b }}", "")
    ['<p>', _Variable(name='a'), '</p>', _Section(name='b', parts=[_Variable(name='c')])]
    """
    pieces = _TAG.split(_TAG_ALONE_IN_ITS_LINE.sub(r"\1", text))
    open_sections = [_Section("", [pieces[0]] if pieces[0] else [])]
    for kind, name, following in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        parts = open_sections[-1].parts
        if kind == "#":
            open_sections.append(_Section(name, []))
            parts.append(open_sections[-1])
        elif kind == "/":
            if open_sections.pop().name != name or not open_sections:
                raise ValueError(f"{template}: {{{{/ {name} }}}} ends no section that was begun last")
        else:
            parts.append(_Variable(name))
        open_sections[-1].parts.extend([following] if following else [])
    if len(open_sections) > 1:
        raise ValueError(f"{template}: section {open_sections[-1].name} does not end")
    if "{{" in "".join(pieces[::3]):
        raise ValueError(f"{template}: expected {{{{ name }}}} with a space at both sides of the name")
    return open_sections[0].parts


def content_security_policy(text: str) -> str:
    """Return the policy of a page whose template, with its partials in place, is `text`.

    It allows only scripts and styles of the template itself, never one inserted by a field.
    """
    hashes: dict[str, list[str]] = {"style": [], "script": []}
    for element, content in _OWN_ELEMENT.findall(text):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[element].append(f"'sha256-{digest}'")
    allowed = [f"{element}-src {' '.join(found)}" for element, found in hashes.items() if found]
    return "; ".join(["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"])


def _fill(template: str, section: str, parts: Sequence[_Part], fields: Fields) -> str:
    wanted = {part.name for part in parts if not isinstance(part, str)}
    if wanted != fields.keys():
        missing, unknown = sorted(wanted - fields.keys()), sorted(fields.keys() - wanted)
        where = f"{template}, section {section}" if section else template
        raise TypeError(f"{where}: missing fields {missing}, unknown fields {unknown}")
    filled: list[str] = []
    for part in parts:
        if isinstance(part, str):
            filled.append(part)
            continue
        value = fields[part.name]
        if isinstance(part, _Variable) and isinstance(value, str):
            filled.append(escape(value))
        elif isinstance(part, _Section) and isinstance(value, Sequence) and not isinstance(value, str):
            filled += [_fill(template, part.name, part.parts, item) for item in value]
        else:
            expected = "a text" if isinstance(part, _Variable) else "a list of fields"
            raise TypeError(f"{template}: {part.name}: expected {expected}, received {type(value).__name__}")
    return "".join(filled)
