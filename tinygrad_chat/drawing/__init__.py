"""SVG pictures: of graphs, with what was computed from what and how gradients flow back through it; and of curves.

Their styles are in pages/.

graph.py       the nodes below a result, as plain records of text
sweep.py       the backward pass, replayed one node at a time
layout.py      where boxes and curves go
columns.py     its harder half: the order and the heights in a column
svg.py         the picture of a graph
html.py        the content of pages/graph.html: the picture, and each step of the backward pass
chart.py       line charts, alone or side by side
intervals.py   means with their confidence intervals, one per row
scale.py       axes and their ticks
png.py         the same charts as PNG, by matplotlib
expression.py  a formula given as text, computed with Values

>>> from tinygrad_chat import Value
>>> a, b = Value(2.0, label="a"), Value(3.0, label="b")
>>> draw_svg(a * b)[:4]
'<svg'
"""

from __future__ import annotations

from tinygrad_chat.autograd import Value
from tinygrad_chat.drawing.html import draw_html
from tinygrad_chat.drawing.svg import draw_notice, draw_svg
from tinygrad_chat.errors import UsageError

__all__ = ["draw_html", "draw_svg"]


def _repr_svg_(self: Value) -> str:
    """Show the graph in a notebook; if it is too large to draw, say so."""
    try:
        return draw_svg(self)
    except UsageError as error:
        return draw_notice(f"{self!r} ({error})")


# Attached here: value.py must run alone, and autograd is a lower layer, so neither may import this package.
Value._repr_svg_ = _repr_svg_  # pyright: ignore[reportAttributeAccessIssue]
