"""Graphs to draw, and a reader of what was drawn."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tinygrad_chat import Tensor, Value, ops

SVG = "{http://www.w3.org/2000/svg}"


def diamond() -> Value:
    """Paths that part and meet, one parent twice, a constant and an edge past several columns."""
    a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    square = a * a
    return (square * b + 10).tanh() * square - b


def chain() -> Value:
    x = Value(1.0, label="x")
    out = x
    for _ in range(30):
        out = out * 0.9 + x
    return out


def wide() -> Value:
    return sum((Value(k, label=f"w{k}") * Value(k + 1) for k in range(12)), Value(0.0))


def attention() -> Tensor:
    random = np.random.default_rng(0)
    x, *weights = (Tensor(random.normal(size=(1, 4, 4) if k == 0 else (4, 4))) for k in range(4))
    query, key, value = (ops.linear(x, weight, None) for weight in weights)
    return (ops.attention(query, key, value, heads=2) * x).sum()


def seam() -> Tensor:
    a, b = Value(2.0, label="a"), Value(3.0)
    return (Tensor.from_values([a * b, a, b]) * Tensor([1.0, 2.0, 3.0])).sum()


GRAPHS: dict[str, Callable[[], Any]] = {graph.__name__: graph for graph in (diamond, chain, wide, attention, seam)}


def sweep(root: Any) -> None:
    if isinstance(root, Value):
        root.backward()
    else:
        root.backward(keep_graph=True)


def parsed(svg: str) -> tuple[dict[int, ElementTree.Element], list[ElementTree.Element]]:
    """Return the nodes by number and the edges of an SVG; fails where it is no XML or a node comes twice."""
    groups = list(ElementTree.fromstring(svg).iter(f"{SVG}g"))
    nodes = [group for group in groups if "data-node" in group.attrib]
    by_number = {int(node.attrib["data-node"]): node for node in nodes}
    assert len(by_number) == len(nodes)
    return by_number, [group for group in groups if "data-parent" in group.attrib]


def text_of(node: ElementTree.Element, kind: str) -> str | None:
    """Return the text of class `kind` in a drawn node."""
    return next((line.text or "" for line in node.iter(f"{SVG}text") if line.attrib["class"] == kind), None)


def box_of(node: ElementTree.Element) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom."""
    x, y = map(float, re.findall(r"[-\d.]+", node.attrib["transform"]))
    rectangle = node.find(f"{SVG}rect")
    assert rectangle is not None
    return x, y, x + float(rectangle.attrib["width"]), y + float(rectangle.attrib["height"])


def overlapping(boxes: list[tuple[float, float, float, float]]) -> list[Any]:
    return [
        (one, other)
        for one, other in itertools.combinations(boxes, 2)
        if one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
    ]
