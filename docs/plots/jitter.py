"""How long it takes until the n-th retry, by the kind of jitter: the median of 2,000 calls."""

from __future__ import annotations

import random

from docs.plots.chart import Chart, Line
from resilience import backoff
from resilience.backoff import Backoff
from resilience.testing import seeded

BASE, CAP, RETRIES, DRAWS = 0.1, 10.0, 8, 2000
KINDS: dict[str, Backoff] = {
    "full_jitter": backoff.full_jitter(BASE, cap=CAP),
    "decorrelated_jitter": backoff.decorrelated_jitter(BASE, cap=CAP),
    "equal_jitter": backoff.equal_jitter(BASE, cap=CAP),
}


def _median_waits(kind: Backoff) -> list[tuple[float, float]]:
    """Return the median of the sum of all waits up to each retry."""
    sums: list[list[float]] = [[] for _ in range(RETRIES)]
    for _ in range(DRAWS):
        total, last = 0.0, None
        for number in range(RETRIES):
            last = kind.seconds(number + 1, last)
            total += last
            sums[number].append(total)
    return [(number + 1.0, sorted(totals)[DRAWS // 2]) for number, totals in enumerate(sums)]


def chart() -> Chart:
    """Return the plot of the page on Retry."""
    with seeded(random.Random(1)):
        lines = [Line(name, _median_waits(kind)) for name, kind in KINDS.items()]
    return Chart("Time until the n-th retry, median", "retry", "seconds", RETRIES, 25.0, 1.0, 5.0, lines)
