"""The dashboard, drawn from what a real Prometheus answers about half an hour of a service in virtual time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.plots.panels import COLOURS, HEADING, HEIGHT, NAMED, PAGE, WIDTH, Curve, Panel
from tests.support.observed_day import SECONDS, START, observed_day
from tests.support.prometheus_server import Server

DASHBOARD = Path(__file__).resolve().parents[1] / "dashboards" / "resilience.json"
RATE_INTERVAL = "1m"
"""What Grafana takes for $__rate_interval if scrapes are 15 s apart."""
STEP = 30.0
"""Seconds from one point of a line to the next."""
PIPELINES: dict[str, str] = dict(
    zip(("shop-payments", "shop-search", "shop-assistant", "shop-stock"), COLOURS, strict=False)
)
BETWEEN = 7.0
"""Seconds after a scrape at which queries are evaluated, so that no sample is at the edge of a range."""


def panels() -> list[dict[str, Any]]:
    """Return the rows and panels of the dashboard."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def filled_in(query: str) -> str:
    """Return a query with the variables that Grafana fills in, all jobs and pipelines being chosen."""
    for name, value in (("__rate_interval", RATE_INTERVAL), ("job", ".*"), ("pipeline", ".*")):
        query = query.replace(f"${name}", value)
    assert "$" not in query, query
    return query


@dataclass(frozen=True)
class Picture:
    """All panels, as they are arranged on the dashboard."""

    height: float
    parts: list[str]

    def svg(self) -> str:
        """Return the picture."""
        title = "The dashboard of resilience: half an hour in which each of four dependencies is in trouble for a while"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PAGE} {self.height:.0f}" font-family="sans-serif" '
            'font-size="10" fill="#555">'
        )
        sheet = f'<rect width="{PAGE}" height="{self.height:.0f}" fill="#f4f5f7"/>'
        return "\n".join([head, f"<title>{title}</title>", sheet, *self.parts, "</svg>"]) + "\n"


def chart() -> Picture:
    """Serve the half hour, and return its picture."""
    with observed_day() as server:
        return drawn(server)


def drawn(server: Server) -> Picture:
    """Return the picture of what a server answers that has the half hour."""
    parts: list[str] = []
    y, edge, first = 0.0, 0.0, 0
    for one in panels():
        place = one["gridPos"]
        if one["type"] == "row":
            y = edge + 4.0
            edge = y + HEADING
            text = f'<text x="6" y="{y + 20:.0f}" font-size="14" font-weight="bold" fill="#222">{one["title"]}</text>'
            parts.append(text)
            first = place["y"] + 1
            continue
        top = y + HEADING + (place["y"] - first) / 8 * HEIGHT
        edge = max(edge, top + HEIGHT)
        curves = list(_curves(server, one))
        left, width = place["x"] / WIDTH * PAGE, place["w"] / WIDTH * PAGE
        parts += Panel(one, curves, left, top, width, START, SECONDS, STEP).svg()
    return Picture(edge, parts)


def _curves(server: Server, panel: dict[str, Any]) -> Iterator[Curve]:
    changes = {
        one["matcher"]["options"]: {each["id"]: each["value"] for each in one["properties"]}
        for one in panel["fieldConfig"]["overrides"]
    }
    for target in panel["targets"]:
        start, end = START + 2 * STEP + BETWEEN, START + SECONDS - STEP + BETWEEN
        found = server.over(filled_in(target["expr"]), start, end, STEP, target["legendFormat"])
        of_pipelines = len({legend.split()[0] for legend in found}) == len(found)
        for legend, points in sorted(found.items()):
            changed = [change for pattern, change in changes.items() if re.fullmatch(pattern, legend)]
            colour = NAMED[changed[0]["color"]["fixedColor"]] if changed and "color" in changed[0] else ""
            if of_pipelines and not changed:
                colour = PIPELINES.get(legend.split()[0], "")
            yield Curve(legend, points, colour, any("custom.lineStyle" in change for change in changed))
