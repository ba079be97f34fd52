"""Rows of means: everything stands where its value belongs, and names stay texts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.drawing.graphs import SVG
from tinygrad_chat.drawing.chart import Chart, Mark, Series, draw_chart, draw_charts
from tinygrad_chat.drawing.intervals import Interval, IntervalChart, draw_intervals, values_shown

HOSTILE = '</svg><script>alert("&")</script> $x_1$ _'
ROWS = [Interval("first", [1.0, 2.0], 1.5, 1.0), Interval(HOSTILE, [3.0], 3.0), Interval("x" * 200, [2.0], 2.0)]


def test_dots_means_and_ends_stand_at_their_values():
    root = ElementTree.fromstring(draw_intervals(IntervalChart("A title", ROWS, "loss")))
    ticks = [text for text in root.iter(f"{SVG}text") if text.attrib.get("class") == "tick x"]
    (x0, value0), (x1, value1) = ((float(tick.attrib["x"]), float(tick.text or "")) for tick in (ticks[0], ticks[-1]))

    def place(value: float) -> float:
        return x0 + (value - value0) / (value1 - value0) * (x1 - x0)

    dots = [float(dot.attrib["cx"]) for dot in root.iter(f"{SVG}circle")]
    assert dots == pytest.approx([place(value) for row in ROWS for value in row.values], abs=0.2)
    bars = [path.attrib["d"] for path in root.iter(f"{SVG}path") if "line" in path.attrib["class"]]
    starts = [[float(x) for x in re.findall(r"M([\d.]+)", bar)] for bar in bars]
    mean, *ends = starts[0]
    assert mean == pytest.approx(place(1.5), abs=0.2)
    assert [ends[0], ends[-1]] == pytest.approx([place(0.5), place(2.5)], abs=0.2)
    assert [len(found) for found in starts] == [4, 1, 1]  # one value has no interval


def test_names_are_kept_in_their_place_and_short():
    svg = draw_intervals(IntervalChart(HOSTILE, ROWS, HOSTILE))
    assert "<script" not in svg
    names = [text for text in ElementTree.fromstring(svg).iter(f"{SVG}text") if text.attrib.get("class") == "name"]
    assert [text.text for text in names][:2] == ["first", HOSTILE]
    assert (names[2].text or "").endswith("\u2026")


def test_without_rows_there_is_still_a_picture():
    assert "A title" in "".join(ElementTree.fromstring(draw_intervals(IntervalChart("A title", [], "x"))).itertext())


def test_charts_beside_each_other_are_one_picture_with_one_style():
    charts = [Chart(name, [Series("s", [(0, 1.0), (1, 2.0)])]) for name in ("one", "two")]
    svg = draw_charts(charts)
    root = ElementTree.fromstring(svg)
    assert svg.count("<style>") == 1
    left, right = (inner for inner in root if inner.tag == f"{SVG}svg")
    assert float(right.attrib["x"]) >= float(left.attrib.get("x", 0)) + float(left.attrib["width"])
    whole = float(root.attrib["viewBox"].split()[2])
    assert float(right.attrib["x"]) + float(right.attrib["width"]) == whole


def test_a_curve_beyond_the_colours_is_dashed_and_one_without_a_name_stands_in_no_legend():
    points = [(0, 1.0), (1, 2.0)]
    svg = draw_chart(Chart("c", [Series("one", points, 0), Series("two", points, 8), Series("", points, 1)]))
    assert 'class="c0 line"' in svg
    assert 'class="c0 dashed line"' in svg
    names = [text for text in ElementTree.fromstring(svg).iter(f"{SVG}text") if text.attrib.get("class") == "name"]
    assert [text.text for text in names] == ["one", "two"]


def test_fractions_stand_on_an_axis_that_counts_nothing():
    chart = Chart("c", [Series("s", [(0, 1.0), (0.5, 2.0)])], whole=False)
    assert ">0.2<" in draw_chart(chart)
    assert ">0.2<" not in draw_chart(Chart("c", chart.series))


@pytest.mark.profile("ci")
def test_a_png_is_drawn_of_every_style_and_of_any_name():
    pytest.importorskip("matplotlib")
    from tinygrad_chat.drawing.png import charts_as_png, intervals_as_png

    points = [(0, 1.0), (1, None), (2, 2.0)]
    series = [
        Series(HOSTILE, points, number, style) for number, style in enumerate(("line", "faint", "marked", "rings"))
    ]
    chart = Chart(HOSTILE, series, HOSTILE, HOSTILE, marks=[Mark(HOSTILE, 1, HOSTILE)], log=True, x_range=(0, 3))
    assert charts_as_png([chart, Chart("c", [Series("_s", points, 9)], from_zero=True)]).startswith(b"\x89PNG")
    assert intervals_as_png(IntervalChart(HOSTILE, ROWS, HOSTILE)).startswith(b"\x89PNG")


def test_no_interval_reaches_beyond_what_can_be():
    rows = [Interval("none", [0.0], 0.0, 9.0), Interval("half", [50.0], 50.0, 9.0)]
    assert set(values_shown(IntervalChart("A", rows, "%", bounds=(0.0, 100.0)))) == {0.0, 9.0, 41.0, 50.0, 59.0, 100.0}
    root = ElementTree.fromstring(draw_intervals(IntervalChart("A", rows, "%", bounds=(0.0, 100.0))))
    dot, *_ = root.iter(f"{SVG}circle")
    bar = next(path.attrib["d"] for path in root.iter(f"{SVG}path") if "line" in path.attrib["class"])
    assert float(re.findall(r"M([\d.]+)", bar)[1]) == pytest.approx(float(dot.attrib["cx"]))
