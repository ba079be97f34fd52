"""The picture: a self-contained SVG, readable on light and dark screens. Its styles affect nothing else on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from unicodedata import east_asian_width

from tinygrad_chat.autograd import Node
from tinygrad_chat.drawing.graph import CONSTANT, LEAF, Record, describe
from tinygrad_chat.drawing.layout import Box, Curve, Layout, arrange
from tinygrad_chat.pages import Markup, escape, svg_style

CHARACTER = 7.3  # the width of a letter in a 12-pixel monospaced font, with some slack
EDGE_CHARACTER = 6.4  # the same for the smaller letters at an edge
FLOW = len(" → -0.1234")  # letters that a page writes after a local gradient
PADDING = 12.0
TITLE_HEIGHT = 27.0
ROW_HEIGHT = 17.0
OPERAND_HEIGHT = 15.0  # keeps arrows apart where an op has many parents
FEWEST_CHARACTERS = 14  # boxes of the same width look calmer
MAX_CHARACTERS = 40
ARROW = 7.0

_SIGNS = {"*": "\N{MULTIPLICATION SIGN}", "-": "\N{MINUS SIGN}", "/": "\N{DIVISION SIGN}"}


def draw_svg(root: Node, names: Mapping[int, str] | None = None) -> Markup:
    """Return the graph below `root` as SVG, leaves on the left, with the gradients that it has.

    `names` labels nodes by their `birth`. Raises UsageError for more than MAX_NODES nodes.
    """
    return svg_of(describe(root, names))


def svg_of(records: Sequence[Record], room: Mapping[int, int] | None = None, *, standalone: bool = True) -> Markup:
    """Return records as SVG. `room` has the characters to reserve for a node's gradient, by the node's number.

    Only a `standalone` picture contains its style; on a page, the page's graph_svg.css provides it.
    """
    rows = {record.number: _rows(record) for record in records}
    factors = {
        (record.number, operand): f"{_SIGNS['*']} {local}"
        for record in records
        for operand, local in enumerate(record.local_gradients)
    }
    letters = max((len(factor) + (0 if standalone else FLOW) for factor in factors.values()), default=0)
    layout = arrange(
        {record.number: _size(record, rows[record.number], (room or {}).get(record.number, 0)) for record in records},
        {record.number: record.parents for record in records},
        straight=ARROW + 10 + EDGE_CHARACTER * letters,
    )
    parts = [_edge(curve, factors.get((curve.child, curve.operand), "")) for curve in layout.curves]
    parts += [_node(record, rows[record.number], layout.boxes[record.number], records[-1]) for record in records]
    return _picture(layout, parts, standalone=standalone)


def draw_notice(text: str) -> Markup:
    """Return one line of text as SVG, to show in place of a picture."""
    width = 2 * PADDING + CHARACTER * _columns(text)
    line = f'<text x="{PADDING}" y="22">{escape(text)}</text>'
    return _picture(Layout(width, 34.0, {}, []), [line])


def _picture(layout: Layout, parts: Sequence[str], *, standalone: bool = True) -> Markup:
    size = f'width="{layout.width:.1f}" height="{layout.height:.1f}"'
    style = [f"<style>{svg_style('graph_svg.css')}</style>"] if standalone else []
    return Markup(
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="tgc-graph" {size} '
                f'viewBox="0 0 {layout.width:.1f} {layout.height:.1f}">',
                *style,
                f'<rect class="paper" {size} rx="10"/>',
                *parts,
                "</svg>",
            ]
        )
    )


def _title(record: Record) -> str:
    if record.kind == CONSTANT:
        return record.value
    sign = "" if record.kind == LEAF else _SIGNS.get(record.kind, record.kind)
    title = "".join(letter if letter.isprintable() else "?" for letter in f"{sign}  {record.label}".strip()) or LEAF
    return title if len(title) <= MAX_CHARACTERS else f"{title[: MAX_CHARACTERS - 1]}…"


def _rows(record: Record) -> list[tuple[str, str]]:
    """Return each row's key, which is also its class, and its text."""
    rows = [("shape", record.shape), ("value", record.value), ("gradient", record.gradient)]
    return [(key, text) for key, text in rows if text and (key, record.kind) != ("value", CONSTANT)]


def _size(record: Record, rows: Sequence[tuple[str, str]], room: int) -> tuple[float, float]:
    """Return the width and height of a record's box."""
    texts = [_columns(_title(record)) + 2 + len(str(record.number))]
    texts += [len(_KEYS[key]) + 2 + max(_columns(text), room if key == "gradient" else 0) for key, text in rows]
    height = TITLE_HEIGHT + ROW_HEIGHT * len(rows) + (8 if rows else 0)
    return (
        2 * PADDING + CHARACTER * max(FEWEST_CHARACTERS, *texts),
        max(height, OPERAND_HEIGHT * (len(record.parents) + 1)),
    )


_KEYS = {"shape": "shape", "value": "value", "gradient": "grad"}


def _columns(text: str) -> int:
    """Return how many letters wide a text is."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _node(record: Record, rows: Sequence[tuple[str, str]], box: Box, result: Record) -> str:
    kinds = [record.kind] if record.kind in (LEAF, CONSTANT) else []
    kinds += ["result"] if record is result else []
    left, right = PADDING, box.width - PADDING
    lines = [
        f'<g class="{" ".join(["node", *kinds])}" data-node="{record.number}" '
        f'transform="translate({box.x:.1f} {box.y:.1f})">',
        f'<rect width="{box.width:.1f}" height="{box.height:.1f}" rx="8"/>',
        f'<text class="title" x="{left}" y="19">{escape(_title(record))}</text>',
        f'<text class="number" x="{right:.1f}" y="18" text-anchor="end">{record.number}</text>',
    ]
    for position, (key, text) in enumerate(rows):
        y = TITLE_HEIGHT + ROW_HEIGHT * position + 12
        lines.append(f'<text class="key" x="{left}" y="{y}">{_KEYS[key]}</text>')
        lines.append(f'<text class="{key}" x="{right:.1f}" y="{y}" text-anchor="end">{escape(text)}</text>')
    return "\n".join([*lines, "</g>"])


def _edge(curve: Curve, factor: str) -> str:
    (start, end, y), *others = curve.runs
    path = [f"M{start:.1f} {y:.1f}H{end:.1f}"]
    for start, following_end, following_y in others:
        middle = (end + start) / 2
        path.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {following_y:.1f} {start:.1f} {following_y:.1f}")
        end, y = following_end, following_y
        path.append(f"H{end:.1f}")
    path[-1] = f"H{end - ARROW:.1f}"  # the arrowhead covers the rest
    return "\n".join(
        [
            f'<g class="edge" data-parent="{curve.parent}" data-child="{curve.child}" data-operand="{curve.operand}">',
            f'<path d="{"".join(path)}"/>',
            f'<path class="head" d="M{end:.1f} {y:.1f}l{-ARROW - 1} -3.8v7.6z"/>',
            f'<text x="{end - ARROW - 5:.1f}" y="{y - 5:.1f}" text-anchor="end">'
            f'<tspan class="local">{escape(factor)}</tspan><tspan class="flow"></tspan></text>',
            "</g>",
        ]
    )
