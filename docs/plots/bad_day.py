"""Calls that succeed while a server loses most of its capacity: bare, with naive retries, and by `standard`."""

from __future__ import annotations

from docs.plots.chart import Chart, Line, Point
from tests.support.bad_day import BEFORE, Client, bare, fall, guarded, naive

SECONDS = 10
AFTER = 30


def _line(name: str, make: Client) -> Line:
    good = fall(make, SECONDS, 1, after=AFTER).good
    points: list[Point] = [(second + 0.5, number) for second, number in enumerate(good)]
    return Line(name, points)


def chart() -> Chart:
    """Run the simulations, and return their chart."""
    return Chart(
        title=f"Calls that succeed: the capacity of the server falls to a fifth from {BEFORE} to {BEFORE + SECONDS} s",
        x_label="seconds",
        y_label="good calls begun per second",
        x_max=BEFORE + SECONDS + AFTER,
        y_max=250,
        x_step=10,
        y_step=50,
        lines=[_line("three naive retries", naive), _line("standard", guarded), _line("bare", bare)],
    )
