"""The picture as a self-contained page that steps through the backward pass as `backpropagate` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tinygrad_chat.autograd import Node
from tinygrad_chat.drawing.graph import Record, describe, norm_text, summary
from tinygrad_chat.drawing.svg import svg_of
from tinygrad_chat.drawing.sweep import Step, replay
from tinygrad_chat.pages import Markup, json_data, render


def draw_html(root: Node, names: Mapping[int, str] | None = None, *, title: str = "graph") -> Markup:
    """Return a page with the graph below `root` and a stepper through its backward pass.

    `names` labels nodes by their `birth`. Raises UsageError for more than MAX_NODES nodes, and if `root` is an array
    of several elements from which no backward pass has started.
    """
    steps = replay(root)
    complete = {step.number: summary(step.gradient) for step in steps}
    records = [
        dataclasses.replace(record, gradient=complete.get(record.number, "")) for record in describe(root, names)
    ]
    sums = [(flow.parent, summary(flow.total)) for step in steps for flow in step.flows]
    room = {number: 2 + max(len(text) for parent, text in sums if parent == number) for number, _ in sums}
    return render(
        "graph.html",
        title=title,
        picture=svg_of(records, room, standalone=False),
        steps=json_data(stepper(records, steps)),
    )


def stepper(records: Sequence[Record], steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return what the page's script shows at each step, as text."""
    record_of = {record.number: record for record in records}
    return [
        {
            "node": step.number,
            "gradient": summary(step.gradient),
            "sentence": _sentence(step, record_of),
            "flows": [
                {
                    "parent": flow.parent,
                    "operand": flow.operand,
                    "gradient": norm_text(flow.gradient),
                    "total": summary(flow.total),
                }
                for flow in step.flows
            ],
        }
        for step in steps
    ]


def _sentence(step: Step, record_of: Mapping[int, Record]) -> str:
    name, d_out = record_of[step.number].name, norm_text(step.gradient)
    if not step.flows:
        return f"{name}: a {record_of[step.number].kind}, so here the sweep ends, with the gradient {d_out}"
    sent = ", ".join(
        f"{_product(record_of[step.number], flow.operand, record_of)}{norm_text(flow.gradient)} to "
        f"{record_of[flow.parent].name}"
        for flow in step.flows
    )
    return f"{name}: d_out = {d_out} → {sent}"


LOCAL_GRADIENTS = {
    "*": ("{y}", "{x}"),
    "/": ("1 / {y}", "-{x} / {y}²"),
    "**": ("{y} × {x}^({y} - 1)", "out × log {x}"),
    "exp": ("out",),
    "log": ("1 / {x}",),
    "sqrt": ("1 / (2 × out)",),
    "tanh": ("(1 - out²)",),
}
"""The local gradients of an op on Values x and y with the result out, where they are more than a number."""


def _product(record: Record, operand: int, record_of: Mapping[int, Record]) -> str:
    """Return how a Value computes the gradient that it sends, as in `d_out × b = `; empty for a Tensor."""
    if not record.local_gradients:
        return ""
    names = [record_of[parent].name for parent in record.parents]
    x, y = ([f"({name})" if " " in name else name for name in names] + [""])[:2]
    terms = LOCAL_GRADIENTS.get(record.kind, record.local_gradients)
    return f"d_out × {terms[operand].format(x=x, y=y)} = "
