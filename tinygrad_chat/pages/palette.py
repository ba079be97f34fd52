"""The colours of palette.css, written out for pictures that stand alone."""

from __future__ import annotations

import functools
import re

from tinygrad_chat.pages.renderer import Markup, read_file


@functools.cache
def svg_style(name: str) -> Markup:
    """Return a stylesheet whose colours are written out, once for light screens and once for dark ones.

    Viewers of SVG other than browsers know no variables, and a picture must not set any on a page that it stands in.
    """
    style = read_file(name)
    light, _, dark = read_file("palette.css").partition("@media")
    light_colors = _variables(light)
    return Markup(
        f"{_written_out(style, light_colors)}@media (prefers-color-scheme: dark) {{\n"
        f"{_written_out(style, {**light_colors, **_variables(dark)})}}}\n"
    )


def _variables(style: str) -> dict[str, str]:
    return dict(re.findall(r"(--[\w-]+): ([^;]+);", style))


def _written_out(style: str, colors: dict[str, str]) -> str:
    return re.sub(r"var\((--[\w-]+)\)", lambda match: colors[match[1]], style)
