"""Write all plots into the folder of the pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from docs.plots import adaptive_limit, bad_day, cooldown, dashboard, hedge, jitter
from tests.support.prometheus_server import is_installed

PAGES = Path(__file__).resolve().parents[1]


class Picture(Protocol):
    """A picture that can be written."""

    def svg(self) -> str:
        """Return it as SVG."""
        ...


PLOTS: dict[str, Callable[[], Picture]] = {
    "adaptive-limit.svg": adaptive_limit.chart,
    "bad-day.svg": bad_day.chart,
    "cooldown.svg": cooldown.chart,
    "hedge.svg": hedge.chart,
    "jitter.svg": jitter.chart,
}
PLOTS_BY_PROMETHEUS: dict[str, Callable[[], Picture]] = {"dashboards/resilience.svg": dashboard.chart}
"""Those that a Prometheus server is needed for: the Debian package `prometheus`."""

if __name__ == "__main__":
    charts = {**PLOTS, **(PLOTS_BY_PROMETHEUS if is_installed() else {})}
    for name, chart in charts.items():
        (PAGES / name).write_text(chart().svg(), "utf-8")
    for name in PLOTS_BY_PROMETHEUS.keys() - charts.keys():
        print(f"{name} was not drawn: prometheus and promtool are not installed")
