"""Write all plots into the folder of the pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.plots import adaptive_limit, cooldown
from docs.plots.chart import Chart

PAGES = Path(__file__).resolve().parents[1]
PLOTS: dict[str, Callable[[], Chart]] = {"adaptive-limit.svg": adaptive_limit.chart, "cooldown.svg": cooldown.chart}

if __name__ == "__main__":
    for name, chart in PLOTS.items():
        (PAGES / name).write_text(chart().svg(), "utf-8")
