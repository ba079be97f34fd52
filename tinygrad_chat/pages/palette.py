"""The colours of palette.css, substituted into the stylesheets of standalone pictures."""

from __future__ import annotations

import functools
import re

from tinygrad_chat.pages.renderer import Markup, read_file


@functools.cache
def svg_style(name: str) -> Markup:
    """Return a stylesheet with its colour variables substituted, once for the light and once for the dark theme.

    SVG viewers other than browsers do not support CSS variables, and an embedded picture must not set any on its page.
    """
    style, (light, dark) = read_file(name), palettes()
    return Markup(
        f"{_written_out(style, light)}@media (prefers-color-scheme: dark) {{\n{_written_out(style, dark)}}}\n"
    )


def palettes() -> tuple[dict[str, str], dict[str, str]]:
    """Return the colours of palette.css for the light theme and for the dark one.

    >>> [colors["paper"] for colors in palettes()]
    ['#fbfbf9', '#15171b']
    """
    light, dark = (
        dict(re.findall(r"--([\w-]+): ([^;]+);", part)) for part in read_file("palette.css").split("@media", 1)
    )
    return light, {**light, **dark}


def _written_out(style: str, colors: dict[str, str]) -> str:
    return re.sub(r"var\(--([\w-]+)\)", lambda match: colors[match[1]], style)
