"""A chart tells the truth about its numbers, whatever they are, and stays small however many they be."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.drawing.graphs import SVG
from tinygrad_chat.drawing.chart import Chart, Mark, Series, draw_chart, thinned
from tinygrad_chat.drawing.scale import TINY, Scale, spanning, tick_texts
from tinygrad_chat.pages.renderer import read_file

WIDTH, HEIGHT = 460, 280

NUMBERS = st.floats(min_value=-1e12, max_value=1e12).map(lambda number: number if abs(number) > TINY else 0.0)
CURVES = st.lists(st.tuples(st.integers(0, 10**6), NUMBERS), min_size=1, max_size=30).map(sorted)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def axis(picture: ElementTree.Element, name: str) -> Scale:
    low, high, start, end, log = map(float, picture.attrib[f"data-{name}"].split())
    return Scale(low, high, start, end, bool(log))


def curve(picture: ElementTree.Element, name: str) -> list[list[tuple[float, float]]]:
    """Return where the points of a series are drawn, piece by piece."""
    (group,) = (group for group in picture.iter(f"{SVG}g") if group.attrib.get("data-name") == name)
    (path,) = group.iter(f"{SVG}path")
    pieces = [re.findall(r"[-\d.]+ [-\d.]+", piece) for piece in path.attrib["d"].split("M")[1:]]
    return [[(float(x), float(y)) for x, y in (pair.split() for pair in piece)] for piece in pieces]


def circles(picture: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    """Return the markers or rings of all series: those of the legend stand in no group."""
    groups = [group for group in picture.iter(f"{SVG}g") if "data-name" in group.attrib]
    return [dot for group in groups for dot in group.iter(f"{SVG}circle") if dot.attrib["class"].endswith(kind)]


def ticks(picture: ElementTree.Element, name: str) -> list[tuple[float, str]]:
    found = [text for text in picture.iter(f"{SVG}text") if text.attrib.get("class") == f"tick {name}"]
    return [(float(text.attrib["data-value"]), text.text or "") for text in found]


@given(CURVES, st.booleans())
def test_every_point_lies_inside_the_frame_where_its_value_belongs(points, log):
    if log:
        points = [(x, abs(y) + 1e-3) for x, y in points]
    picture = parsed(draw_chart(Chart("c", [Series("s", points)], log=log)))
    across, up = axis(picture, "x"), axis(picture, "y")
    assert 0 < across.start < across.end < WIDTH
    assert 0 < up.end < up.start < HEIGHT
    (drawn,) = curve(picture, "s")
    assert len(drawn) == len(points)
    for (x, y), (column, row) in zip(points, drawn, strict=True):
        assert across.start - 0.01 <= column <= across.end + 0.01
        assert up.end - 0.01 <= row <= up.start + 0.01
        assert column == pytest.approx(across.place(x), abs=0.006)
        assert row == pytest.approx(up.place(y), abs=0.006)


@given(NUMBERS, NUMBERS, st.integers(4, 8), st.booleans())
def test_ticks_are_round_rising_few_and_on_the_axis(one, other, most, whole):
    scale = spanning([one, other], 0, 100)
    found = scale.ticks(most, whole=whole)
    assert found == sorted(set(found))
    assert len(found) <= most
    assert all(scale.low <= tick <= scale.high for tick in found)
    assert not whole or all(tick == int(tick) for tick in found)
    steps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert all(re.fullmatch(r"[125](\.0+)?e.*", f"{step:.3e}") for step in steps)
    if not whole:
        assert len(found) >= 2 or scale.high - scale.low < 1e-6 * abs(scale.high)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 2000, [0, 500, 1000, 1500, 2000]),
        (1.31, 4.58, [1.5, 2, 2.5, 3, 3.5, 4, 4.5][1::2]),
        (0, 0.004, [0, 0.001, 0.002, 0.003, 0.004]),
        (-3, 3, [-2, 0, 2]),
        (0, 3e-300, [0, 1e-300, 2e-300, 3e-300]),
    ],
)
def test_ticks_of_a_few_ranges(low, high, expected):
    assert Scale(low, high, 0, 1).ticks(5) == expected


def test_ticks_count_in_whole_numbers_even_where_there_are_only_two():
    assert Scale(0, 1, 0, 1).ticks(5, whole=True) == [0, 1]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.8, 60, [1, 2, 5, 10, 20, 50]),
        (0.8, 700, [1, 3, 10, 30, 100, 300]),
        (1e-9, 1e9, [1e-9, 1e-5, 1e-1, 1e3, 1e7]),
        (1.5, 4.5, [2, 3, 4]),  # factors would be too few
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, expected):
    assert Scale(low, high, 0, 1, log=True).ticks(6) == expected


def test_a_logarithmic_axis_gives_equal_factors_equal_room():
    scale = spanning([0.1, 1000], 300, 20, log=True)
    rows = [scale.place(10.0**power) for power in range(-1, 4)]
    assert [later - earlier for earlier, later in itertools.pairwise(rows)] == pytest.approx([-70] * 4)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 0.5, 1], ["0.0", "0.5", "1.0"]),
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([0, 10_000, 20_000], ["0", "10k", "20k"]),
        ([0, 12_500, 25_000], ["0", "12.5k", "25.0k"]),
        ([0, 2e6], ["0", "2M"]),
        ([0, 1e-5, 2e-5], ["0", "1e-5", "2e-5"]),
        ([0.5, 1, 10], ["0.5", "1", "10"]),
        ([-2, 0, 2], ["-2", "0", "2"]),
        ([1e30], ["1e30"]),
    ],
)
def test_ticks_are_written_short_and_alike(values, texts):
    assert tick_texts(values) == texts


@given(CURVES)
def test_what_is_written_beside_a_tick_is_its_value(points):
    picture = parsed(draw_chart(Chart("c", [Series("s", points)])))
    letters = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    for value, text in ticks(picture, "x") + ticks(picture, "y"):
        written = float(text.rstrip("kMGT").replace(",", "")) * letters.get(text[-1], 1)
        assert written == pytest.approx(value, rel=1e-3)


@given(CURVES)
@example([(0, 0.0), (2000, 1.0)])  # whose last label stands at the very edge
def test_no_two_labels_overlap_and_none_leaves_the_picture(points):
    picture = parsed(draw_chart(Chart("c", [Series("s", points)])))
    rows = [float(text.attrib["y"]) for text in picture.iter(f"{SVG}text") if text.attrib.get("class") == "tick y"]
    assert all(above - below >= 14 for above, below in itertools.pairwise(rows))
    spans = []
    for text in picture.iter(f"{SVG}text"):
        if text.attrib.get("class") == "tick x":
            half, middle = 6.6 * len(text.text or "") / 2, float(text.attrib["x"])
            spans.append((middle - half, middle + half))
    assert all(left[1] < right[0] for left, right in itertools.pairwise(spans))
    assert all(right <= WIDTH for _, right in spans)


@given(st.lists(NUMBERS, min_size=1, max_size=300), st.integers(1, 20))
def test_thinning_keeps_what_can_be_seen(values, buckets):
    points = list(enumerate(values))
    kept = thinned(points, buckets)
    assert set(kept) <= set(points)
    assert list(kept) == sorted(kept)
    assert len(kept) <= max(4 * (buckets + 1), 1)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert min(value for _, value in kept) == min(values)
    assert max(value for _, value in kept) == max(values)


def test_a_long_series_makes_a_small_picture_that_shows_a_spike_of_one_point():
    points = [(step, 1.0 + step % 7 / 10) for step in range(100_000)]
    points[54_321] = (54_321, 50.0)
    points[77_777] = (77_777, -50.0)
    svg = draw_chart(Chart("c", [Series("s", points)]), width=940)
    assert len(svg) < 100_000
    picture = parsed(svg)
    up = axis(picture, "y")
    rows = [row for _, row in curve(picture, "s")[0]]
    assert (min(rows), max(rows)) == pytest.approx((up.place(50), up.place(-50)), abs=0.006)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf, 1e301])
def test_a_missing_value_is_a_gap(missing):
    points = [(0, 1.0), (1, 2.0), (2, missing), (3, 3.0), (4, 4.0)]
    assert [len(piece) for piece in curve(parsed(draw_chart(Chart("c", [Series("s", points)]))), "s")] == [2, 2]


def test_what_is_not_above_zero_is_a_gap_on_a_logarithmic_axis():
    points = [(0, 1.0), (1, 0.0), (2, -1.0), (3, 3.0)]
    picture = parsed(draw_chart(Chart("c", [Series("s", points)], log=True)))
    assert [len(piece) for piece in curve(picture, "s")] == [1, 1]


def test_points_that_no_line_reaches_and_those_of_a_sparse_series_are_marked():
    lonely = [(0, 1.0), (1, None), (2, 2.0), (3, 3.0)]
    sparse = [(step, float(step)) for step in range(5)]
    dense = [(step / 100, float(step)) for step in range(500)]
    chart = Chart("c", [Series("a", lonely), Series("b", sparse, 1, "marked"), Series("c", dense, 2, "marked")])
    classes = [dot.attrib["class"] for dot in circles(parsed(draw_chart(chart)), "marker")]
    assert classes == ["c0 marker"] + ["c1 marker"] * 5


def test_rings_are_joined_by_no_line():
    picture = parsed(draw_chart(Chart("c", [Series("s", [(0, 1.0), (5, 2.0)], style="rings")])))
    assert len(circles(picture, "ring")) == 2
    assert not [path for group in picture.iter(f"{SVG}g") for path in group.iter(f"{SVG}path")]


@pytest.mark.parametrize(
    "points",
    [[(0, 0.0)], [(7, 5.0)], [(0, 3.0), (9, 3.0)], [(1, 9e299)], [(1, 1e-300)], [(0, -1e299), (1, 1e299)]],
)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("from_zero", [False, True])
def test_ranges_without_width_and_huge_ones_are_drawn(points, log, from_zero):
    svg = draw_chart(Chart("c", [Series("s", points)], log=log, from_zero=from_zero))
    assert "nan" not in svg
    assert "inf" not in svg
    assert log or ticks(parsed(svg), "y")


def test_an_axis_begins_at_zero_where_it_is_told_to():
    picture = parsed(draw_chart(Chart("c", [Series("s", [(0, 90.0), (1, 100.0)])], from_zero=True)))
    assert axis(picture, "y").low == 0


def test_charts_of_one_range_stand_under_each_other():
    chart = Chart("c", [Series("s", [(10, 1.0), (20, 2.0)])], x_range=(0, 100))
    across = axis(parsed(draw_chart(chart)), "x")
    assert (across.low, across.high) == (0, 100)


def test_several_names_make_a_legend_that_wraps_and_marks_of_one_name_share_a_line():
    series = [Series(f"a series with the number {number}", [(0, 1.0), (1, 2.0)], number) for number in range(4)]
    marks = [Mark("went back", 0.2, "from 0.4", until=0.4), Mark("went back", 0.6, "from 0.9", until=0.9)]
    picture = parsed(draw_chart(Chart("c", series, marks=marks)))
    names = [text for text in picture.iter(f"{SVG}text") if text.attrib.get("class") == "name"]
    assert [text.text for text in names] == [*(curve.name for curve in series), "went back"]
    rows = {float(text.attrib["y"]) for text in names}
    assert len(rows) > 1
    assert max(rows) < axis(picture, "y").end
    assert all(float(text.attrib["x"]) + 6.6 * len(text.text or "") < WIDTH for text in names)
    one = parsed(draw_chart(Chart("c", series[:1])))
    assert not [text for text in one.iter(f"{SVG}text") if text.attrib.get("class") == "name"]


def test_a_mark_stands_at_its_x_and_its_band_reaches_to_the_other():
    picture = parsed(draw_chart(Chart("c", [Series("s", [(0, 1.0), (100, 2.0)])], marks=[Mark("m", 40, "t", 60)])))
    across = axis(picture, "x")
    (group,) = (group for group in picture.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None)
    band, line = group.find(f"{SVG}rect"), group.find(f"{SVG}path")
    assert band is not None
    assert line is not None
    assert float(band.attrib["x"]) == pytest.approx(across.place(40), abs=0.01)
    assert float(band.attrib["width"]) == pytest.approx(across.place(60) - across.place(40), abs=0.02)
    assert line.attrib["d"].startswith(f"M{across.place(40):.2f} ")


def test_names_cannot_leave_their_place_in_the_picture():
    hostile = '</svg><script>alert("&")</script>'
    chart = Chart(
        hostile,
        [Series(hostile, [(0, 1.0), (1, 2.0)]), Series("b", [(0, 1.0), (1, 1.0)])],
        unit=hostile,
        x_name=hostile,
        marks=[Mark(hostile, 0, hostile)],
    )
    svg = draw_chart(chart)
    parsed(svg)
    assert "<script" not in svg


def test_without_values_the_picture_says_so():
    for series in ([], [Series("s", [])], [Series("s", [(0, None)])]):
        assert "Loss: no values" in "".join(parsed(draw_chart(Chart("Loss", series))).itertext())


def test_a_picture_suits_light_and_dark_screens_and_names_no_address_but_that_of_the_svg_standard():
    svg = draw_chart(Chart("c", [Series("s", [(0, 1.0), (1, 2.0)])]))
    assert "prefers-color-scheme: dark" in svg
    assert set(re.findall(r"\w+://[^\"']+", svg)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"\b(?:src|href)=|@import|url\(", svg)


def test_the_script_can_stand_in_a_page_that_is_xml_and_finds_what_the_picture_offers():
    assert not set("<&") & set(read_file("chart.js"))
    svg = draw_chart(Chart("c", [Series("s", [(0, 1.0), (1, 2.0)])]))
    for name in (
        'data-x="',
        'data-y="',
        'data-x-name="',
        'data-name="',
        'class="series"',
        'class="cross"',
        "tgc-chart",
    ):
        assert name in svg
