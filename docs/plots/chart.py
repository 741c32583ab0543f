"""Line charts as SVG, with nothing but the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 48, 44
COLOURS = ("#d1495b", "#00798c", "#66666e", "#edae49")

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart; `dashed` for what is given, not measured."""

    name: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart: its title, what the axes say, up to where they go, and its lines."""

    title: str
    x_label: str
    y_label: str
    x_max: float
    y_max: float
    x_step: float
    y_step: float
    lines: Sequence[Line]

    def x(self, value: float) -> float:
        return LEFT + value / self.x_max * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - min(value, self.y_max) / self.y_max * (HEIGHT - TOP - BOTTOM)

    def svg(self) -> str:
        """Return the chart as an SVG document."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="12" fill="#333">',
            f"<title>{escape(self.title)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="{LEFT}" y="18" font-size="14">{escape(self.title)}</text>',
            *self._grid(),
            *self._lines(),
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escape(self.x_label)}</text>",
            f'<text x="14" y="{(TOP + HEIGHT - BOTTOM) / 2:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2:.0f})">{escape(self.y_label)}</text>',
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _grid(self) -> list[str]:
        parts: list[str] = []
        for number in range(round(self.y_max / self.y_step) + 1):
            value = number * self.y_step
            at = f"{self.y(value):.1f}"
            parts.append(f'<line x1="{LEFT}" y1="{at}" x2="{WIDTH - RIGHT}" y2="{at}" stroke="#e4e4e8"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{at}" dy="4" text-anchor="end">{value:g}</text>')
        for number in range(round(self.x_max / self.x_step) + 1):
            value = number * self.x_step
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
            )
        return parts

    def _lines(self) -> list[str]:
        parts: list[str] = []
        for index, line in enumerate(self.lines):
            colour = COLOURS[index]
            points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in line.points)
            dash = ' stroke-dasharray="6 4"' if line.dashed else ""
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
            at = LEFT + 210 * index
            parts.append(f'<line x1="{at}" y1="32" x2="{at + 22}" y2="32" stroke="{colour}" stroke-width="2"{dash}/>')
            parts.append(f'<text x="{at + 28}" y="36">{escape(line.name)}</text>')
        return parts


def steps(values: Sequence[Point], until: float) -> list[Point]:
    """Return the points of a line that keeps each value until the next one."""
    points: list[Point] = []
    for x, y in values:
        if points:
            points.append((x, points[-1][1]))
        points.append((x, y))
    return [*points, (until, points[-1][1])]
