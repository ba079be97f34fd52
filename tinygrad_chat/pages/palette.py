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
    style, (light, dark) = read_file(name), palettes()
    return Markup(
        f"{_written_out(style, light)}@media (prefers-color-scheme: dark) {{\n{_written_out(style, dark)}}}\n"
    )


def palettes() -> tuple[dict[str, str], dict[str, str]]:
    """Return what palette.css sets for light screens, and for dark ones.

    >>> [colors["paper"] for colors in palettes()]
    ['#fbfbf9', '#15171b']
    """
    light, dark = (
        dict(re.findall(r"--([\w-]+): ([^;]+);", part)) for part in read_file("palette.css").split("@media", 1)
    )
    return light, {**light, **dark}


def _written_out(style: str, colors: dict[str, str]) -> str:
    return re.sub(r"var\(--([\w-]+)\)", lambda match: colors[match[1]], style)
