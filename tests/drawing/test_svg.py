"""A picture shows each node and edge once, in its place, and tells the truth about it."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from tests.drawing.graphs import GRAPHS, box_of, diamond, overlapping, parsed, sweep, text_of, wide
from tinygrad_chat import Tensor, Value, ops
from tinygrad_chat.autograd.fused import matrix_vector
from tinygrad_chat.drawing import draw_svg
from tinygrad_chat.drawing.graph import MAX_NODES, describe, nodes_below, norm_text, number_text, summary
from tinygrad_chat.drawing.layout import Curve, arrange
from tinygrad_chat.errors import UsageError

every_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


@every_graph
def test_every_node_and_edge_is_drawn_once(graph):
    root = graph()
    nodes = nodes_below(root)
    number = {node.birth: position for position, node in enumerate(nodes, 1)}
    drawn_nodes, drawn_edges = parsed(draw_svg(root))
    assert drawn_nodes.keys() == set(number.values())
    expected = Counter(
        (number[parent.birth], number[node.birth], operand)
        for node in nodes
        for operand, parent in enumerate(parent for parent in node.parents if parent is not None)
    )
    found = Counter(
        (int(edge.attrib["data-parent"]), int(edge.attrib["data-child"]), int(edge.attrib["data-operand"]))
        for edge in drawn_edges
    )
    assert found == expected
    assert sum(expected.values()) > 0


@every_graph
def test_boxes_keep_apart_and_stand_right_of_their_parents_within_the_picture(graph):
    root = graph()
    sweep(root)
    svg = draw_svg(root)
    boxes = {number: box_of(node) for number, node in parsed(svg)[0].items()}
    assert overlapping(list(boxes.values())) == []
    for record in describe(root):
        assert all(boxes[parent][2] < boxes[record.number][0] for parent in record.parents)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    for left, top, right, bottom in boxes.values():
        assert 0 < left < right < width
        assert 0 < top < bottom < height


def _crosses(curve: Curve, box: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = box
    return any(start < right and end > left and top <= y <= bottom for start, end, y in curve.runs)


@every_graph
def test_no_edge_runs_through_a_box_that_is_not_its_own(graph):
    records = describe(graph())
    layout = arrange({r.number: (120.0, 60.0) for r in records}, {r.number: r.parents for r in records})
    boxes = {n: (box.x, box.y, box.x + box.width, box.y + box.height) for n, box in layout.boxes.items()}
    for curve in layout.curves:
        others = [box for number, box in boxes.items() if number not in (curve.parent, curve.child)]
        assert not any(_crosses(curve, box) for box in others)


def test_a_tree_is_drawn_without_a_crossing_and_first_operands_enter_at_the_top():
    records = describe(wide())
    layout = arrange({r.number: (120.0, 60.0) for r in records}, {r.number: r.parents for r in records})
    entry = {(curve.child, curve.operand): curve.runs[-1][2] for curve in layout.curves}
    for record in records:
        if len(record.parents) == 2:
            first, second = (layout.boxes[parent] for parent in record.parents)
            assert entry[record.number, 0] < entry[record.number, 1]
            assert first.y < second.y


def test_the_same_graph_gives_the_same_picture():
    assert draw_svg(diamond()) == draw_svg(diamond())


def test_a_value_shows_its_sign_label_value_and_gradient():
    root = diamond()
    root.label = "loss"
    before = parsed(draw_svg(root))[0]
    root.backward()
    after = parsed(draw_svg(root))[0]
    assert {text_of(node, "gradient") for node in before.values()} == {None}
    for record, node in zip(describe(root), nodes_below(root), strict=True):
        assert isinstance(node, Value)
        assert text_of(after[record.number], "gradient") == number_text(node.grad)
        shown = text_of(after[record.number], "title" if record.kind == "constant" else "value")
        assert shown == number_text(node.data)
    titles = [text_of(node, "title") for node in after.values()]
    assert titles[:2] == ["a", "b"]
    assert titles[-1] == "\N{MINUS SIGN}  loss"
    assert {"tanh", "\N{MULTIPLICATION SIGN}", "+", "10"} <= set(titles)


def test_an_edge_of_values_says_its_local_gradient():
    a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    edges = parsed(draw_svg((a * b).tanh() + 1))[1]
    texts = {(e.get("data-child"), e.get("data-operand")): "".join(e.itertext()).strip() for e in edges}
    slope = number_text(1 - np.tanh(-6.0) ** 2)
    assert texts == {
        ("3", "0"): "\N{MULTIPLICATION SIGN} -3",
        ("3", "1"): "\N{MULTIPLICATION SIGN} 2",
        ("4", "0"): f"\N{MULTIPLICATION SIGN} {slope}",
        ("6", "0"): "\N{MULTIPLICATION SIGN} 1",
        ("6", "1"): "\N{MULTIPLICATION SIGN} 1",
    }


def test_a_leaf_without_a_label_is_a_leaf_and_a_plain_number_a_constant():
    kinds = [(record.kind, record.name) for record in describe(Value(3.0) * 2 + (1 - Value(4.0)))]
    assert [kind for kind in kinds if kind[0] in ("leaf", "constant")] == [
        ("leaf", "leaf 1"),
        ("constant", "2"),
        ("leaf", "leaf 4"),
        ("constant", "1"),
    ]


def test_kinds_are_told_apart():
    nodes = parsed(draw_svg(diamond()))[0].values()
    titles = {text_of(node, "title"): node.attrib["class"] for node in nodes}
    assert (titles["a"], titles["10"], titles["tanh"]) == ("node leaf", "node constant", "node")
    assert titles["\N{MINUS SIGN}"] == "node result"


def test_a_tensor_shows_its_op_shape_and_summaries_and_the_name_that_it_is_given():
    x = Tensor(np.array([[1.0, 3.0]]))
    out = ops.softmax(x).max()
    out.backward(keep_graph=True)
    records = describe(out, {x.birth: "logits"})
    assert [(r.kind, r.label, r.shape) for r in records] == [
        ("leaf", "logits", "(1, 2)"),
        ("softmax", "", "(1, 2)"),
        ("max", "", "()"),
    ]
    assert records[0].value == "2 ± 1"
    assert (records[2].value, records[2].gradient) == (number_text(out.item()), "1")


class Loud(Value):
    def shout(self) -> Value:
        return Value(self.data * 2, (self,), (2.0,), "shout")


def test_ops_of_fused_values_subclasses_and_seams_have_names():
    root = Tensor.from_values([*matrix_vector([[Value(1.0)]], [Value(2.0)]), Loud(1.0).shout()])
    names = [record.kind for record in describe(root) if record.kind not in ("constant", "leaf")]
    assert names == ["matrix_vector", "shout", "from_values"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(-0.0, "0"), (123456.0, "1.235e+05"), (1 / 3, "0.3333"), (np.float32(2), "2"), (float("nan"), "nan")],
)
def test_numbers_have_four_digits(number, text):
    assert number_text(number) == text


def test_arrays_are_summed_up():
    assert summary(np.array([1.0, 3.0, 5.0])) == "3 ± 1.633"
    assert norm_text(np.array([[3.0], [4.0]])) == "‖5‖"
    assert (summary(np.array([[7.0]])), norm_text(np.array([[7.0]])), summary(np.zeros((0, 2)))) == ("7", "7", "empty")
    assert summary(np.array([1.0, np.inf])) == "inf ± nan"


@pytest.mark.parametrize("label", ["<script>&\"'</script>", "]]>", "\x00\x1b", "日本", "x" * 500])
def test_labels_are_escaped_and_kept_short(label):
    svg = draw_svg(Value(1.0, label=label) * 2)
    title = text_of(parsed(svg)[0][1], "title")
    assert title is not None
    assert len(title) <= 40
    if label.isprintable() and len(label) <= 40:
        assert title == label
    assert "<script>" not in svg


def test_a_released_graph_is_refused_with_the_remedy():
    out = Tensor(3.0) * 2
    out.backward()
    with pytest.raises(UsageError, match="pass keep_graph=True"):
        draw_svg(out)


def test_a_chain_of_100_000_nodes_is_refused_with_its_number():
    out = Value(0.0)
    for _ in range(50_000):
        out = out + 1
    with pytest.raises(UsageError, match=f"at most {MAX_NODES} nodes, this has 100,001"):
        draw_svg(out)


@pytest.mark.profile("ci")
def test_the_largest_graph_is_drawn():
    out = x = Value(1.0)
    for _ in range(MAX_NODES - 1):
        out = out + x
    assert len(parsed(draw_svg(out))[0]) == MAX_NODES
    with pytest.raises(UsageError):
        draw_svg(out + x)


def test_a_notebook_shows_values_before_and_after_backward_and_large_ones_as_a_line():
    root = diamond()
    assert root._repr_svg_() == draw_svg(root)  # pyright: ignore[reportAttributeAccessIssue]
    root.backward()
    assert root._repr_svg_() == draw_svg(root)  # pyright: ignore[reportAttributeAccessIssue]
    large = sum((Value(k) for k in range(MAX_NODES)), Value(0.0))
    notice = large._repr_svg_()  # pyright: ignore[reportAttributeAccessIssue]
    assert parsed(notice) == ({}, [])
    assert "this has 801; draw a smaller part" in notice
