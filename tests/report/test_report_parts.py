"""Tables, drawings and intervals by themselves."""

from dataclasses import replace
from math import inf, nan
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.report.needles import comparison_table, needle_tables
from fwpkm.report.numbers import interval, span
from fwpkm.report.others import gate_table, perplexity_comparison, perplexity_table, slot_table
from fwpkm.report.svg import Curve, heat_map, line_chart
from fwpkm.report.table import Table
from fwpkm.testing.results import make_gates, make_needles, make_perplexity, make_slots

SVG = "{http://www.w3.org/2000/svg}"


def test_intervals_are_wilsons() -> None:
    assert interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@given(total=st.integers(1, 500), data=st.data())
def test_an_interval_holds_the_share_and_stays_in_range(total: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, total))
    low, high = interval(right, total)
    assert 0 <= low <= right / total + 1e-12
    assert right / total - 1e-12 <= high <= 1


@pytest.mark.parametrize(("right", "total"), [(1, 0), (3, 2), (-1, 2)])
def test_impossible_counts_have_no_interval(right: int, total: int) -> None:
    with pytest.raises(ValueError, match="0 <= right <= total"):
        interval(right, total)


def test_spans_name_their_last_position() -> None:
    assert (span(1, 2), span(1024, 2048)) == ("1", "1,024 to 2,047")


def test_a_table_is_flush() -> None:
    table = Table(title="Sizes", columns=("name", "n"), rows=(("a", "1,000"), ("longer", "2")))
    assert table.to_text() == "Sizes\n  name        n\n  a       1,000\n  longer      2"


def test_a_table_escapes_its_cells() -> None:
    table = Table(title="<t>", columns=("a&b",), rows=(("<i>",),))
    assert "<caption>&lt;t&gt;</caption>" in table.to_html()
    assert "<th>a&amp;b</th>" in table.to_html()
    assert "<td>&lt;i&gt;</td>" in table.to_html()


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 2 cells, got 1"):
        Table(title="t", columns=("a", "b"), rows=(("1",),))


def test_needle_tables_hold_the_counts() -> None:
    once, twice = needle_tables(make_needles())
    assert once.columns[1:4] == ("depth 0%", "depth 100%", "all")
    assert once.rows[0][:4] == ("512", "1/4", "2/4", "3/8")
    assert twice.rows[1][:4] == ("2,048", "2/4", "3/4", "5/8")
    assert twice.rows[1][-1] == "71.4%"


def test_results_of_different_lengths_are_compared_where_they_have_any() -> None:
    long = make_needles("long")
    short = type(long)(
        origin=make_needles("short").origin,
        settings=long.settings,
        cells=tuple(cell for cell in long.cells if cell.length == 512),
    )
    table = comparison_table([long, short])
    assert table.columns == ("tokens", "long: 1 read", "long: 2 reads", "short: 1 read", "short: 2 reads")
    assert table.rows[1] == ("2,048", "3/8 (38%)", "5/8 (62%)", "", "")


def test_other_tables_hold_their_numbers() -> None:
    perplexity = perplexity_table(make_perplexity())
    assert perplexity.rows[0][:4] == ("1", "1", "2.8854", "7.389")
    assert perplexity.rows[-1] == ("all", "3", "2.4045", "5.294", "1.2022")
    assert gate_table(make_gates()).rows == (("layer 1, text", "10", "0.500", "0.250", "50%", "50%"),)
    slots = slot_table(make_slots())
    assert slots.rows[0] == ("0", "64", "10", "50%", "25%", "1.50", "75%", "6")
    assert slots.rows[1][-1] == ""


def test_losses_of_several_models_stand_side_by_side() -> None:
    first = make_perplexity("first")
    second = replace(make_perplexity("second"), bins=first.bins[:1])
    table = perplexity_comparison([first, second])
    assert table.columns == ("position", "first", "second")
    assert table.rows[:2] == (("1", "2.8854", "2.8854"), ("2 to 3", "2.1640", ""))
    assert table.rows[-1][1:] == ("1.2022", "1.2022")


def test_a_heat_map_has_a_coloured_cell_for_each_number() -> None:
    drawn = heat_map(
        [[0.0, None], [0.5, 1.0]], rows=["a", "b"], columns=["x", "y"], row_title="r", column_title="c"
    )
    root = ElementTree.fromstring(drawn)
    ground, *cells = (rect.get("fill") for rect in root.iter(f"{SVG}rect"))
    assert ground == "#fff"  # dark pages would swallow the text
    assert len(set(cells)) == len(cells) == 3
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert [t for t in texts if t and t.endswith("%")] == ["0%", "50%", "100%"]


def test_a_heat_map_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 2 rows of 1"):
        heat_map([[0.0]], rows=["a", "b"], columns=["x"], row_title="r", column_title="c")


def circles(drawn: str) -> list[tuple[float, float]]:
    found = ElementTree.fromstring(drawn).iter(f"{SVG}circle")
    return [(float(c.get("cx") or nan), float(c.get("cy") or nan)) for c in found]


def test_curves_rise_where_numbers_do_and_double_in_equal_steps() -> None:
    drawn = line_chart([Curve(name="a", x=(1.0, 2.0, 4.0), y=(0.0, 0.5, 1.0))], x_title="x", y_title="y")
    (x0, y0), (x1, y1), (x2, y2) = circles(drawn)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 > y1 > y2  # SVG counts downwards


def test_points_that_cannot_be_drawn_are_left_out() -> None:
    curve = Curve(name="a", x=(0.0, 1.0, 2.0, 4.0), y=(1.0, nan, inf, 3.0))
    assert len(circles(line_chart([curve], x_title="x", y_title="y"))) == 1
    nothing = line_chart([Curve(name="a", x=(), y=())], x_title="x", y_title="y")
    assert "nothing to draw" in nothing


@pytest.mark.parametrize(
    ("top", "ticks"),
    [(5964.1, ["0", "1,491", "2,982", "4,473", "5,964"]), (0.4, ["0", "0.1", "0.2", "0.3", "0.4"])],
)
def test_heights_are_written_as_people_write_them(top: float, ticks: list[str]) -> None:
    curve = Curve(name="a", x=(1.0, 2.0), y=(0.0, top))
    texts = [
        x.text
        for x in ElementTree.fromstring(line_chart([curve], x_title="x", y_title="y")).iter(f"{SVG}text")
    ]
    assert texts[:5] == ticks


def test_an_axis_without_a_power_of_two_still_has_a_label() -> None:
    drawn = line_chart([Curve(name="a", x=(5.0, 6.0), y=(0.0, 1.0))], x_title="x", y_title="y")
    labels = [t.text for t in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert "4" in labels


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(-1e6, 1e6)), min_size=1, max_size=5))
def test_all_points_lie_on_the_drawing(points: list[tuple[float, float]]) -> None:
    x, y = zip(*points, strict=True)
    drawn = line_chart([Curve(name="a", x=x, y=y)], x_title="x", y_title="y")
    for across, down in circles(drawn):
        assert 0 <= across <= 640
        assert 0 <= down <= 340
