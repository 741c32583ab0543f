"""Callers of an API whose quota is used up: with a Retry alone, and with a Cooldown inside it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from docs.plots.chart import Chart, Line, Point
from docs.plots.fixed_time import fixed_time
from resilience import Allowlist, Cooldown, Failure, FailureKind, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import clock
from resilience.testing import seeded

QUOTA = 60
MINUTE = 60.0
SECONDS = 300.0
RATE = 1.3
LATENCY = 0.2


class TooManyRequests(Exception):
    """HTTP 429 with Retry-After."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


LIMITED = Allowlist(
    TooManyRequests,
    when=lambda error: Failure(FailureKind.OVERLOAD, getattr(error, "retry_after", None), counted=False),
)


async def _turned_away(*more: Any) -> list[Point]:
    """Make calls at a steady rate; return how many requests were turned away up to each second."""
    retry = Retry(attempts=6, wait=backoff.full_jitter(1.0, cap=5.0))
    pipeline = Pipeline(Timeout(600.0), retry, *more, failures=LIMITED, budget=None, name="plotted")
    start = clock.monotonic()
    taken: Counter[int] = Counter()
    turned_away = 0

    async def get() -> None:
        nonlocal turned_away
        await asyncio.sleep(LATENCY)
        now = clock.monotonic() - start
        minute = int(now // MINUTE)
        if taken[minute] >= QUOTA:
            turned_away += 1
            raise TooManyRequests((minute + 1) * MINUTE - now)
        taken[minute] += 1

    tasks: list[asyncio.Task[Any]] = []
    points: list[Point] = []
    while (now := clock.monotonic() - start) <= SECONDS:
        points.append((now, turned_away))
        if now < SECONDS / 2:
            tasks.append(asyncio.create_task(pipeline.acall(get)))
        await asyncio.sleep(1 / RATE)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return points


def _run(*more: Any) -> list[Point]:
    with fixed_time(), seeded(1):
        return asyncio.run(_turned_away(*more))


def chart() -> Chart:
    """Run the simulations, and return their chart."""
    return Chart(
        title="Requests turned away with 429: 78 calls a minute, of which the API takes 60",
        x_label="seconds",
        y_label="turned away so far",
        x_max=SECONDS,
        y_max=80,
        x_step=60,
        y_step=20,
        lines=[Line("Retry alone", _run()), Line("Retry and Cooldown", _run(Cooldown()))],
    )
