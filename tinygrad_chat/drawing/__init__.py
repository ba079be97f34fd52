"""Pictures, as SVG: of graphs, what was computed from what and how the gradient goes back through it; and of curves.

What they look like stands in pages/.

graph.py       the nodes below a result, as plain records of text
sweep.py       the backward sweep, replayed one node at a time
layout.py      where boxes and curves go
columns.py     its harder half: in which order and how high things stand in a column
svg.py         the picture
html.py        what pages/graph.html shows: the picture, and each step of the sweep
chart.py       a line chart, and several beside each other
intervals.py   means with their confidence intervals, a row each
scale.py       axes and their round numbers
png.py         the same charts by matplotlib, where a PNG is asked for
expression.py  a formula, as text, computed with Values

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
    """Show the graph in a notebook; where it is too large to draw, say so."""
    try:
        return draw_svg(self)
    except UsageError as error:
        return draw_notice(f"{self!r} ({error})")


# Attached from here: value.py must run alone, and autograd stands left of this folder, so neither may import it.
Value._repr_svg_ = _repr_svg_  # pyright: ignore[reportAttributeAccessIssue]
