"""The page steps as `backpropagate` does, and needs nothing but itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.drawing.graphs import GRAPHS, diamond, parsed, sweep, text_of
from tinygrad_chat import Tensor, Value, ops
from tinygrad_chat.autograd import sweep as sweep_module
from tinygrad_chat.autograd import value as value_module
from tinygrad_chat.autograd.value import topological_order
from tinygrad_chat.drawing import draw_html
from tinygrad_chat.drawing.graph import describe, nodes_below, number_text, summary
from tinygrad_chat.drawing.sweep import replay
from tinygrad_chat.errors import UsageError

every_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def steps_of(page: str) -> list[dict]:
    return json.loads(re.findall(r'<script type="application/json" id="steps">(.*?)</script>', page)[0])


@every_graph
def test_the_steps_are_the_visits_of_backpropagate(graph, monkeypatch):
    root = graph()
    nodes = nodes_below(root)
    number = {node.birth: position for position, node in enumerate(nodes, 1)}
    leaves = {number[node.birth] for node in nodes if not node.parents}
    visited = []

    class Spied(list[Any]):
        """Nodes that tell when one of them is taken, from the end."""

        def __reversed__(self) -> Iterator[Any]:
            while self:
                yield self.pop()

        def pop(self, index: Any = -1) -> Any:
            node = super().pop(index)
            if node.parents:
                visited.append(number[node.birth])
            return node

    for module in (value_module, sweep_module):
        monkeypatch.setattr(module, "topological_order", lambda root: Spied(topological_order(root)))
    sweep(root)
    monkeypatch.undo()
    steps = [step.number for step in replay(root)]  # those of leaves, which show what has come, are the page's own
    assert [number for number in steps if number not in leaves] == visited
    assert [step["node"] for step in steps_of(draw_html(root))] == steps
    assert sorted(steps) == sorted(number.values())


@every_graph
def test_partial_sums_add_up_to_what_the_sweep_leaves_and_nothing_in_the_graph_changes(graph):
    root = graph()
    steps = replay(root)
    assert not np.any(root.grad)
    sweep(root)
    final = {position: node.grad for position, node in enumerate(nodes_below(root), 1)}
    sums = {steps[0].number: steps[0].gradient}
    for step in steps:
        np.testing.assert_allclose(step.gradient, final[step.number], rtol=1e-12)
        np.testing.assert_array_equal(sums[step.number], step.gradient)  # complete when its turn comes
        for flow in step.flows:
            sums[flow.parent] = sums.get(flow.parent, 0) + flow.gradient
            np.testing.assert_allclose(flow.total, sums[flow.parent], rtol=1e-12)
    assert [step.number for step in replay(root)] == [step.number for step in steps]
    for node, gradient in zip(nodes_below(root), final.values(), strict=True):
        np.testing.assert_array_equal(node.grad, gradient)


@every_graph
def test_every_step_points_at_what_is_drawn(graph):
    root = graph()
    page = draw_html(root)
    nodes, edges = parsed(page[page.index("<svg") : page.index("</main>")])
    ways = {tuple(int(edge.attrib[f"data-{end}"]) for end in ("parent", "child", "operand")) for edge in edges}
    used = {(flow["parent"], step["node"], flow["operand"]) for step in steps_of(page) for flow in step["flows"]}
    assert used == ways
    for step in steps_of(page):
        assert text_of(nodes[step["node"]], "gradient") == step["gradient"]


def test_a_step_says_what_flows_where():
    a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    sentences = [step["sentence"] for step in steps_of(draw_html(a * b * 2))]
    assert sentences == [
        "multiply 5: d_out = 1 → d_out × 2 = 2 to multiply 3, d_out × (multiply 3) = -6 to 2",
        "2: a constant, so here the sweep ends, with the gradient -6",
        "multiply 3: d_out = 2 → d_out × b = -6 to a, d_out × a = 4 to b",
        "b: a leaf, so here the sweep ends, with the gradient 4",
        "a: a leaf, so here the sweep ends, with the gradient -6",
    ]


@pytest.mark.parametrize(
    ("formula", "terms"),
    [
        (lambda x, y: x + y, ["1", "1"]),
        (lambda x, y: x - y, ["1", "-1"]),
        (lambda x, y: x * y, ["y", "x"]),
        (lambda x, y: x / y, ["1 / y", "-x / y²"]),
        (lambda x, y: x**y, ["y × x^(y - 1)", "out × log x"]),
        (lambda x, y: -x, ["-1"]),
        (lambda x, y: x.exp(), ["out"]),
        (lambda x, y: x.log(), ["1 / x"]),
        (lambda x, y: x.sqrt(), ["1 / (2 × out)"]),
        (lambda x, y: x.tanh(), ["(1 - out²)"]),
        (lambda x, y: x.relu(), ["1"]),
    ],
)
def test_a_sentence_says_by_what_a_gradient_is_multiplied_and_that_is_so(formula, terms):
    """The term, computed in Python, is the local gradient."""
    x, y = Value(1.7, label="x"), Value(2.3, label="y")
    out = formula(x, y)
    sentence = steps_of(draw_html(out))[0]["sentence"]
    assert re.findall(r"d_out × (.+?) = ", sentence) == terms
    for term, local in zip(terms, out.local_gradients, strict=True):
        code = term.replace("×", "*").replace("^", "**").replace("²", "**2").replace("log x", "np.log(x)")
        assert eval(code, {"x": x.data, "y": y.data, "out": out.data, "np": np}) == pytest.approx(local)


def test_what_flows_in_tensors_is_shown_by_its_length():
    x = Tensor(np.array([3.0, 4.0]))
    out = (x * x).sum()
    first = steps_of(draw_html(out))[1]
    assert [flow["gradient"] for flow in first["flows"]] == ["‖5‖", "‖5‖"]
    assert first["flows"][1]["total"] == summary(2 * x.data)


def test_a_parent_without_a_gradient_is_passed_over():
    root = ops.dropout(Tensor(np.ones(4)), rate=0.5, seed=1).sum()
    tokens = ops.embedding(Tensor(np.ones((3, 2))), np.array([0, 2])).sum()
    assert [len(step.flows) for step in replay(root)] == [len(step.flows) for step in replay(tokens)] == [1, 1, 0]


def test_the_page_names_no_address_but_that_of_the_svg_standard():
    page = draw_html(diamond(), title="x")
    assert set(re.findall(r"\w+://[^\"']+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"\b(?:src|href)=|@import|url\(", page)


def test_a_label_cannot_leave_its_place_in_the_page():
    label = '</script><script>alert("&")</script>'
    page = draw_html(Value(2.0, label=label) * 3, title=label)
    assert page.count("<script") == page.count("</script>") == 2
    assert label in steps_of(page)[-1]["sentence"]


def test_the_same_graph_gives_the_same_page():
    assert draw_html(diamond()) == draw_html(diamond())


def test_an_array_that_no_sweep_began_at_is_refused_until_one_does():
    out = Tensor(np.ones(3)) * 2
    with pytest.raises(UsageError, match=r"expected a scalar result, received shape \(3,\)"):
        draw_html(out)
    out.backward(np.array([1.0, 2.0, 3.0]), keep_graph=True)
    assert steps_of(draw_html(out))[0]["gradient"] == "2 ± 0.8165"


def test_gradients_of_the_page_are_of_one_sweep_though_leaves_add_up():
    x = Value(3.0, label="x")
    out = x * x
    out.backward()
    out.backward()
    assert describe(out)[0].gradient == number_text(12)
    assert steps_of(draw_html(out))[-1]["gradient"] == number_text(6)
