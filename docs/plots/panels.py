"""The panels of a dashboard of Grafana as SVG, with nothing but the standard library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from docs.plots.chart import Point

COLOURS = ("#00798c", "#d1495b", "#edae49", "#6a4c93", "#66a182", "#2e4057", "#b5651d", "#8d96a3")
NAMED = {
    "green": "#5aa64b",
    "yellow": "#f2cc0c",
    "red": "#e02f44",
    "purple": "#8f3bb8",
    "blue": "#3274d9",
    "orange": "#ff780a",
    "text": "#8d96a3",
}
"""Those of Grafana."""
PAGE, WIDTH, HEIGHT, HEADING = 1120, 24, 184, 30
"""The width of the picture, the columns of Grafana's grid, and the heights of a panel and of the title of a row."""
LEFT, RIGHT, TOP, BOTTOM = 44, 26, 28, 64
LETTER = 5.7
"""The width of a letter of a legend, on average."""


@dataclass(frozen=True)
class Curve:
    """A line of a panel: its legend, its points, its colour, and whether it is dashed."""

    name: str
    points: Sequence[Point]
    colour: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """A panel with its data.

    Attributes:
        json: the panel, as Grafana has it.
        curves: its lines.
        x: the left edge, in pixels.
        y: the upper edge.
        width: its width.
        start: the time at which the data begins, in seconds.
        seconds: how long it goes on.
        step: the seconds from one point to the next.
    """

    json: dict[str, Any]
    curves: Sequence[Curve]
    x: float
    y: float
    width: float
    start: float
    seconds: float
    step: float

    def svg(self) -> Iterator[str]:
        """Yield its parts."""
        yield f'<g transform="translate({self.x:.1f} {self.y:.1f})">'
        yield f'<rect x="3" y="0" width="{self.width - 6:.1f}" height="{HEIGHT - 8}" rx="3" fill="#fff" stroke="#ddd"/>'
        yield f'<text x="12" y="17" font-weight="bold" fill="#222">{escape(self.json["title"])}</text>'
        if self.json["type"] == "state-timeline":
            yield from self._states()
        else:
            yield from self._lines()
        yield "</g>"

    def _across(self, at: float) -> float:
        return LEFT + (at - self.start) / self.seconds * (self.width - LEFT - RIGHT)

    def _up(self, value: float, most: float) -> float:
        return HEIGHT - BOTTOM - min(value, most) / most * (HEIGHT - TOP - BOTTOM)

    def _minutes(self) -> Iterator[str]:
        for minute in range(0, int(self.seconds / 60) + 1, 5):
            x = self._across(self.start + 60 * minute)
            yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{minute} min</text>'

    def _lines(self) -> Iterator[str]:
        defaults = self.json["fieldConfig"]["defaults"]
        custom = defaults["custom"]
        curves = [one for one in self.curves if any(value for _, value in one.points)] or self.curves[:4]
        stacked = custom["stacking"]["mode"] == "normal"
        below = _stack(curves) if stacked else [{} for _ in curves]
        tops = [value + base.get(at, 0.0) for one, base in zip(curves, below, strict=True) for at, value in one.points]
        most = float(defaults.get("max") or _rounded(max(tops, default=0.0)))
        for share in (0.0, 0.5, 1.0):
            y = self._up(share * most, most)
            yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{self.width - RIGHT:.1f}" y2="{y:.1f}" stroke="#e8e8ec"/>'
            label = _text(share * most, defaults["unit"])
            yield f'<text x="{LEFT - 5}" y="{y:.1f}" dy="3" text-anchor="end">{label}</text>'
        yield from self._minutes()
        if custom["thresholdsStyle"]["mode"] == "dashed":
            y = self._up(defaults["thresholds"]["steps"][1]["value"], most)
            yield (
                f'<line x1="{LEFT}" y1="{y:.1f}" x2="{self.width - RIGHT:.1f}" y2="{y:.1f}" stroke="#e02f44" '
                'stroke-dasharray="2 3"/>'
            )
        colours = [one.colour or COLOURS[index % len(COLOURS)] for index, one in enumerate(curves)]
        for curve, base, colour in zip(curves, below, colours, strict=True):
            if custom["drawStyle"] == "bars":
                yield from self._bars(curve, base, most, colour)
            else:
                yield from self._curve(curve, base, most, colour, filled=stacked)
        yield from self._legend([(one.name, colour) for one, colour in zip(curves, colours, strict=True)])

    def _curve(
        self, curve: Curve, base: dict[float, float], most: float, colour: str, *, filled: bool
    ) -> Iterator[str]:
        dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
        for piece in _pieces(curve.points, self.step):
            above = [f"{self._across(at):.1f},{self._up(value + base.get(at, 0.0), most):.1f}" for at, value in piece]
            if filled:
                under = [f"{self._across(at):.1f},{self._up(base.get(at, 0.0), most):.1f}" for at, _ in reversed(piece)]
                yield f'<polygon points="{" ".join(above + under)}" fill="{colour}" fill-opacity="0.35"/>'
            yield f'<polyline points="{" ".join(above)}" fill="none" stroke="{colour}" stroke-width="1.4"{dash}/>'

    def _bars(self, curve: Curve, base: dict[float, float], most: float, colour: str) -> Iterator[str]:
        width = 0.7 * (self._across(self.step) - self._across(0.0))
        for at, value in curve.points:
            if value:
                y, foot = self._up(value + base.get(at, 0.0), most), self._up(base.get(at, 0.0), most)
                x = self._across(at) - width / 2
                yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{foot - y:.1f}" fill="{colour}"/>'

    def _states(self) -> Iterator[str]:
        texts: dict[str, dict[str, str]] = self.json["fieldConfig"]["defaults"]["mappings"][0]["options"]
        height = (HEIGHT - TOP - BOTTOM) / max(1, len(self.curves))
        for row, curve in enumerate(self.curves):
            y = TOP + row * height
            for piece in _runs(curve.points):
                x, end = self._across(piece[0][0]), self._across(piece[-1][0] + self.step)
                colour = NAMED[texts[f"{piece[0][1]:.0f}"]["color"]]
                yield (
                    f'<rect x="{x:.1f}" y="{y + 3:.1f}" width="{min(end, self.width - RIGHT) - x:.1f}" '
                    f'height="{height - 6:.1f}" fill="{colour}"/>'
                )
            yield f'<text x="{LEFT + 6}" y="{y + height / 2:.1f}" dy="4" fill="#222">{escape(curve.name)}</text>'
        yield from self._minutes()
        yield from self._legend([(one["text"], NAMED[one["color"]]) for one in texts.values()])

    def _legend(self, entries: Sequence[tuple[str, str]]) -> Iterator[str]:
        x, y = 14.0, HEIGHT - BOTTOM + 29.0
        for name, colour in entries:
            width = 28 + LETTER * len(name)
            if x + width > self.width - 8 and x > 14.0:
                x, y = 14.0, y + 13
            yield f'<rect x="{x:.1f}" y="{y - 4:.1f}" width="10" height="3" fill="{colour}"/>'
            yield f'<text x="{x + 14:.1f}" y="{y:.1f}">{escape(name)}</text>'
            x += width


def _stack(curves: Sequence[Curve]) -> list[dict[float, float]]:
    """Return for each curve what lies below it at each time."""
    below: list[dict[float, float]] = []
    total: dict[float, float] = {}
    for curve in curves:
        below.append(dict(total))
        for at, value in curve.points:
            total[at] = total.get(at, 0.0) + value
    return below


def _pieces(points: Sequence[Point], step: float) -> Iterator[list[Point]]:
    """Yield the parts of a line without a gap."""
    piece = list(points[:1])
    for one, other in pairwise(points):
        if other[0] - one[0] > 1.5 * step:
            yield piece
            piece = []
        piece.append(other)
    yield piece


def _runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield the parts of a line with the same value."""
    run = list(points[:1])
    for one, other in pairwise(points):
        if one[1] != other[1]:
            yield run
            run = []
        run.append(other)
    yield run


def _rounded(value: float) -> float:
    """Return a round number that is not less."""
    if value <= 0.0:
        return 1.0
    power = 1.0
    while power > value:
        power /= 10.0
    while power * 10.0 <= value:
        power *= 10.0
    return next(
        factor * power for factor in (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0) if factor * power >= value
    )


def _text(value: float, unit: str) -> str:
    """Return a value with its unit, as short as it can be."""
    if unit == "percentunit":
        return f"{100.0 * value:.3g} %"
    if unit == "s":
        return f"{1000.0 * value:.3g} ms" if 0.0 < value < 1.0 else f"{value:.3g} s"
    return f"{value:.3g}/s" if unit == "reqps" else f"{value:.3g}"
