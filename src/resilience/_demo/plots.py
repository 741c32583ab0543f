"""The plots of a run as one SVG picture, without any external resource, for light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from resilience._demo.run import Result
from resilience._demo.script import BIN, Arm, ServiceName, Span
from resilience._demo.summary import of_service

PANEL, GAP, LEFT, RIGHT = 290, 18, 52, 12
SUCCESS, ATTEMPTS, BREAKERS = (70, 120), (232, 120), (394, 52)
"""The top and the height of each row of panels."""
HEIGHT = 500
STYLE = """
.demo text { font: 11px system-ui, sans-serif; fill: #444 }
.demo .title { font-size: 14px; font-weight: 600; fill: #222 }
.demo .row { font-weight: 600 }
.demo .phase { font-size: 9.5px }
.demo .paper { fill: #fff }
.demo .grid { stroke: #888; stroke-opacity: .25 }
.demo .sick { fill: #c62828; fill-opacity: .07 }
.demo .dead { fill: #c62828; fill-opacity: .18 }
.demo .line { fill: none; stroke-width: 1.7; stroke-linejoin: round }
.demo .http { stroke: #0b6fb8 }
.demo .grpc { stroke: #b85c00; stroke-dasharray: 5 2.5 }
.demo .closed { fill: #2e8540 }
.demo .half_open { fill: #e0a100 }
.demo .open { fill: #c62828 }
@media (prefers-color-scheme: dark) {
.demo text { fill: #bbb }
.demo .title { fill: #eee }
.demo .paper { fill: #16181c }
.demo .sick { fill: #ff6b6b; fill-opacity: .1 }
.demo .dead { fill: #ff6b6b; fill-opacity: .26 }
.demo .http { stroke: #58b4f5 }
.demo .grpc { stroke: #ffa94d }
.demo .closed { fill: #4caf6a }
.demo .half_open { fill: #ffd24d }
.demo .open { fill: #ff6b6b }
}
"""

Line = list[tuple[float, float]]


def picture(result: Result) -> str:
    """Return the plots: a column for each arm; success, attempts and breakers below each other."""
    arms = result.plan.arms
    width = LEFT + len(arms) * (PANEL + GAP) - GAP + RIGHT
    attempts = {arm: attempts_per_second(result, arm) for arm in arms}
    top = nice(max((value for lines in attempts.values() for line in lines.values() for _, value in line), default=1))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="demo" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" role="img">',
        f"<title>{escape(title(result))}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{HEIGHT}"/>',
        *_names_of_rows(result),
    ]
    for number, arm in enumerate(arms):
        panel = Panel(LEFT + number * (PANEL + GAP), result.plan.day, labelled=number == 0)
        parts.append(f'<text class="title" x="{panel.left}" y="20">{arm}</text>')
        parts += panel.phases()
        parts += panel.chart(SUCCESS, 100.0, "%", success(result, arm))
        parts += panel.chart(ATTEMPTS, top, "", attempts[arm])
        parts += panel.breakers(result, arm)
    parts += _legend(width, result)
    return "\n".join([*parts, "</svg>"]) + "\n"


def title(result: Result) -> str:
    """Return what the picture shows, in one sentence."""
    arms = ", ".join(result.plan.arms)
    return f"Calls served, attempts per second, and states of the breakers over {result.plan.seconds:.0f} s: {arms}"


def success(result: Result, arm: Arm) -> dict[ServiceName, Line]:
    """Return the share of calls that are served, in percent, by the time at which they were due."""
    lines: dict[ServiceName, Line] = {}
    mine = [call for call in result.records.calls if call.arm is arm]
    for service in result.plan.services:
        calls = of_service(mine, service)
        line: Line = []
        for at in range(_bins(result)):
            served = [call.served for call in calls if int(call.arrival.due / BIN) == at]
            if served:
                line.append(((at + 0.5) * BIN, 100 * sum(served) / len(served)))
        lines[service] = line
    return lines


def attempts_per_second(result: Result, arm: Arm) -> dict[ServiceName, Line]:
    """Return the attempts per second: as the services counted them, or as sent to a service of the user."""
    lines: dict[ServiceName, Line] = {}
    for service in result.plan.services:
        line: Line = []
        for at in range(_bins(result)):
            if service in result.seen:
                number = result.seen[service][arm]["bins"].get(str(at), 0)
            else:
                number = result.records.sent[service, arm, at]
            line.append(((at + 0.5) * BIN, number / BIN))
        lines[service] = line
    return lines


def _bins(result: Result) -> int:
    return max(1, int(result.plan.seconds / BIN))


def nice(value: float) -> float:
    """Return the next number from above that is good for an axis."""
    scale = 1.0
    while True:
        for step in (1, 2, 3, 4, 5, 6, 8):
            if value <= step * scale * 10:
                return step * scale * 10
        scale *= 10


def _names_of_rows(result: Result) -> list[str]:
    seen = "counted by the services" if result.seen else "sent"
    rows = ((SUCCESS, "calls served, %"), (ATTEMPTS, f"attempts per second, {seen}"), (BREAKERS, "breakers"))
    return [f'<text class="row" x="{LEFT}" y="{top - 7}">{name}</text>' for (top, _), name in rows]


def _legend(width: int, result: Result) -> list[str]:
    y = HEIGHT - 12
    parts: list[str] = []
    x = LEFT
    for service in result.plan.services:
        parts.append(f'<line class="line {service}" x1="{x}" y1="{y - 4}" x2="{x + 24}" y2="{y - 4}"/>')
        parts.append(f'<text x="{x + 30}" y="{y}">{_shown(service)}</text>')
        x += 80
    for state, name in (("closed", "closed"), ("half_open", "half-open"), ("open", "open")):
        height = _heights[state]
        parts.append(f'<rect class="{state}" x="{x}" y="{y + 1 - height}" width="14" height="{height}"/>')
        parts.append(f'<text x="{x + 20}" y="{y}">{name}</text>')
        x += 84
    parts.append(f'<text x="{width - RIGHT}" y="{y}" text-anchor="end">seconds</text>')
    return parts


def _shown(service: ServiceName) -> str:
    return "HTTP" if service is ServiceName.HTTP else "gRPC"


_heights = {"closed": 3, "half_open": 8, "open": 14}


class Panel:
    """A column of the picture.

    Args:
        left: its left edge.
        day: the phases.
        labelled: whether it has labels at its left.
    """

    def __init__(self, left: float, day: Sequence[Span], *, labelled: bool) -> None:
        self.left = left
        self._day = day
        self._labelled = labelled
        self._seconds = day[-1].end

    def x(self, at: float) -> float:
        """Return the place of a time."""
        return self.left + min(at, self._seconds) / self._seconds * PANEL

    def phases(self) -> list[str]:
        """Return the names of the phases, in two lines, so that short ones have room."""
        parts: list[str] = []
        for number, span in enumerate(self._day):
            middle = (self.x(span.start) + self.x(span.end)) / 2
            y = 36 if number % 2 else 47
            parts.append(
                f'<text class="phase" x="{middle:.1f}" y="{y}" text-anchor="middle">{escape(span.phase.name)}</text>'
            )
        return parts

    def _bands(self, row: tuple[int, int]) -> list[str]:
        top, height = row
        return [
            f'<rect class="{"sick" if span.phase.alive else "dead"}" x="{self.x(span.start):.1f}" y="{top}" '
            f'width="{self.x(span.end) - self.x(span.start):.1f}" height="{height}"/>'
            for span in self._day
            if span.phase.sick
        ]

    def chart(self, row: tuple[int, int], most: float, unit: str, lines: dict[ServiceName, Line]) -> list[str]:
        """Return a chart with a line for each service."""
        top, height = row

        def place(value: float) -> float:
            return top + height - min(value, most) / most * height

        parts = self._bands(row)
        for share in (0.0, 0.5, 1.0):
            y = place(share * most)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{self.left + PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>')
            if self._labelled:
                label = f"{share * most:g}{unit}"
                parts.append(f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        for service, line in lines.items():
            points = " ".join(f"{self.x(at):.1f},{place(value):.1f}" for at, value in line)
            parts.append(f'<polyline class="line {service}" points="{points}"/>')
        return [*parts, *self._seconds_below(top + height)]

    def _seconds_below(self, y: float) -> list[str]:
        step = 10 if self._seconds > 15 else 2 if self._seconds > 4 else 1
        return [
            f'<text x="{self.x(at):.1f}" y="{y + 13}" text-anchor="middle">{at}</text>'
            for at in range(0, int(self._seconds) + 1, step)
        ]

    def breakers(self, result: Result, arm: Arm) -> list[str]:
        """Return the states of the breakers over time."""
        top, height = BREAKERS
        parts = self._bands(BREAKERS)
        if arm is not Arm.STANDARD:
            middle = self.left + PANEL / 2
            parts.append(f'<text x="{middle}" y="{top + height / 2 + 4}" text-anchor="middle">none</text>')
        else:
            for number, service in enumerate(result.plan.services):
                parts += self._states(result, service, top + 20 + number * 24)
        return [*parts, *self._seconds_below(top + height)]

    def _states(self, result: Result, service: ServiceName, bottom: float) -> list[str]:
        changes = [(0.0, "closed")]
        changes += [(one.at, one.state) for one in result.records.breakers if one.service is service]
        parts = [f'<text x="{self.left + 4}" y="{bottom - 6}">{_shown(service)}</text>']
        for (start, state), (end, _) in zip(changes, [*changes[1:], (self._seconds, "")], strict=True):
            height = _heights.get(state, 14)
            width = max(0.8, self.x(end) - self.x(start))
            parts.append(
                f'<rect class="{escape(state)}" x="{self.x(start):.1f}" y="{bottom - height:.1f}" '
                f'width="{width:.1f}" height="{height}"/>'
            )
        return parts
