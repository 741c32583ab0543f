"""Write all plots into the folder of the pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from docs.plots import adaptive_limit, bad_day, cooldown, hedge, jitter

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

if __name__ == "__main__":
    for name, chart in PLOTS.items():
        (PAGES / name).write_text(chart().svg(), "utf-8")
