"""Heat maps and curves as SVG, without a plotting library."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log2

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
"""Told apart by colour-blind people too (Okabe and Ito); repeated if there are more curves."""
_LOW, _HIGH = (247, 243, 236), (11, 83, 148)
_CELL_WIDTH, _CELL_HEIGHT, _MARGIN = 64, 34, 84
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 340, 64, 28, 32, 48
_LEGEND_LINE = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points from left to right."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    """Lower ends of a band around the curve, which `high` closes."""
    high: tuple[float, ...] | None = None
    """Its upper ends."""


def heat_map(
    values: Sequence[Sequence[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
) -> str:
    """Draw shares in [0, 1] as coloured cells with their percents; None leaves a cell empty.

    Raises:
        ValueError: If `values` does not have a row for each of `rows` and a column for each of `columns`.
    """
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError(f"heat_map: values must be {len(rows)} rows of {len(columns)}")
    width, height = _MARGIN + _CELL_WIDTH * len(columns) + 8, _CELL_HEIGHT * (len(rows) + 2) + 4
    parts = [
        _text(_MARGIN + _CELL_WIDTH * len(columns) / 2, 14, column_title, "middle"),
        _text(_MARGIN - 10, 14, row_title, "end"),
    ]
    for j, column in enumerate(columns):
        parts.append(_text(_MARGIN + _CELL_WIDTH * (j + 0.5), 32, column, "middle"))
    for i, row in enumerate(rows):
        y = 40 + _CELL_HEIGHT * i
        parts.append(_text(_MARGIN - 10, y + 22, row, "end"))
        for j, value in enumerate(values[i]):
            parts += [] if value is None else _cell(_MARGIN + _CELL_WIDTH * j, y, value)
    return _svg(width, height, parts)


def line_chart(
    curves: Sequence[Curve],
    *,
    x_title: str,
    y_title: str,
    low: float | None = None,
    high: float | None = None,
) -> str:
    """Draw curves over a logarithmic axis; points that are not finite, or not right of 0, are left out.

    Args:
        curves: What to draw.
        x_title: What is counted along.
        y_title: What is measured.
        low: Lower end of the vertical axis; None fits it to the points.
        high: Its upper end.
    """
    kept = [
        (curve, [p for p in zip(curve.x, curve.y, strict=True) if p[0] > 0 and isfinite(p[1])])
        for curve in curves
    ]
    points = [point for curve, own in kept for point in (*own, *_edges(curve))]
    if not points:
        return _svg(_WIDTH, 40, [_text(_LEFT, 24, "nothing to draw", "start")])
    frame = _Frame.around(points, low, high)
    parts = [*frame.axes(x_title, y_title)]
    for i, (curve, own) in enumerate(kept):
        parts += _band(frame, curve, COLOURS[i % len(COLOURS)])
        parts += _curve(frame, curve.name, sorted(own), COLOURS[i % len(COLOURS)], dashed=i >= len(COLOURS))
        parts += _legend(i, curve.name)
    return _svg(_WIDTH, _HEIGHT + _LEGEND_LINE * len(curves) + 8, parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """From numbers to places on the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]], low: float | None, high: float | None) -> "_Frame":
        xs, ys = [log2(x) for x, _ in points], [y for _, y in points]
        bottom = min(ys) if low is None else low
        top = max(ys) if high is None else high
        pad = 0.5 if top == bottom else 0.0
        room = max(0.0, 1.0 - (max(xs) - min(xs)))  # a width of one doubling always holds a power of two
        return cls(
            x_low=min(xs) - room,
            x_high=max(xs) + room,
            y_low=bottom - pad,
            y_high=top + pad,
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (log2(x) - self.x_low) / (self.x_high - self.x_low)
        up = (y - self.y_low) / (self.y_high - self.y_low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    def axes(self, x_title: str, y_title: str) -> Iterator[str]:
        for i in range(5):
            y = self.y_low + (self.y_high - self.y_low) * i / 4
            _, at = self.place(2.0**self.x_low, y)
            yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
            yield _text(_LEFT - 8, at + 4, f"{y:,.0f}" if abs(y) >= 1000 else f"{y:.3g}", "end")
        for power in self._powers():
            at, _ = self.place(2.0**power, self.y_low)
            yield _text(at, _HEIGHT - _BOTTOM + 18, f"{2.0**power:,.0f}", "middle")
        yield _text((_LEFT + _WIDTH) / 2, _HEIGHT - 10, x_title, "middle")
        yield _text(8, 12, y_title, "start")

    def _powers(self) -> range:
        first, last = -floor(-self.x_low), floor(self.x_high)
        return range(first, last + 1, 1 + (last - first) // 9)


def _edges(curve: Curve) -> list[tuple[float, float]]:
    """Return a band's ends: its lower ones from left to right, its upper ones back."""
    if curve.low is None or curve.high is None:
        return []
    ends = sorted(
        p for p in zip(curve.x, curve.low, curve.high, strict=True) if p[0] > 0 and all(map(isfinite, p))
    )
    return [(x, low) for x, low, _ in ends] + [(x, high) for x, _, high in reversed(ends)]


def _band(frame: _Frame, curve: Curve, colour: str) -> Iterator[str]:
    if edges := _edges(curve):
        outline = " ".join("{:.1f},{:.1f}".format(*frame.place(x, y)) for x, y in edges)
        yield f'<polygon points="{outline}" fill="{colour}" fill-opacity="0.15"/>'


def _curve(
    frame: _Frame, name: str, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool
) -> Iterator[str]:
    places = [frame.place(x, y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    for (x, y), (at, value) in zip(places, points, strict=True):
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
            f"<title>{escape(name)}: {value:.4g} at {at:,.0f}</title></circle>"
        )


def _legend(i: int, name: str) -> Iterator[str]:
    y, colour = _HEIGHT + _LEGEND_LINE * i, COLOURS[i % len(COLOURS)]
    yield f'<line x1="{_LEFT}" x2="{_LEFT + 24}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
    yield _text(_LEFT + 32, y + 4, name, "start")


def _cell(x: float | int, y: float | int, value: float) -> Iterator[str]:
    share = min(max(value, 0.0), 1.0)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_LOW, _HIGH, strict=True))
    colour = "#fff" if share > 0.5 else "#222"
    yield (
        f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH - 2}" height="{_CELL_HEIGHT - 2}" '
        f'fill="rgb({red},{green},{blue})"/>'
    )
    yield _text(x + _CELL_WIDTH / 2 - 1, y + 21, f"{value:.0%}", "middle", colour)


def _text(x: float | int, y: float | int, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>'
    )
