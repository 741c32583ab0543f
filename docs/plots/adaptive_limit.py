"""An AdaptiveLimit in front of a server that sheds what is above its capacity, which halves for a while."""

from __future__ import annotations

import asyncio

from docs.plots.chart import Chart, Line, Point, steps
from docs.plots.fixed_time import fixed_time
from resilience import AdaptiveLimit, Allowlist, BulkheadFullError, Failure, FailureKind, Pipeline
from resilience._util.clock import clock
from resilience.testing import seeded

CAPACITY = ((0.0, 40), (20.0, 20), (40.0, 40))
SECONDS = 60.0
CLIENTS = 100
LATENCY = 0.1


class OverloadedError(Exception):
    """The server sheds the request."""


SHED = Allowlist(OverloadedError, when=lambda error: Failure(FailureKind.OVERLOAD))


async def _run() -> list[Point]:
    limit = AdaptiveLimit()
    pipeline = Pipeline(limit, failures=SHED, name="plotted")
    start = clock.monotonic()
    busy = 0
    points: list[Point] = []

    async def serve() -> None:
        nonlocal busy
        now = clock.monotonic() - start
        if busy >= [capacity for since, capacity in CAPACITY if since <= now][-1]:
            await asyncio.sleep(LATENCY / 10)
            raise OverloadedError
        busy += 1
        try:
            await asyncio.sleep(LATENCY * clock.random.uniform(0.8, 1.2))
        finally:
            busy -= 1

    async def client() -> None:
        while True:
            try:
                await pipeline.acall(serve)
            except (OverloadedError, BulkheadFullError):
                await asyncio.sleep(LATENCY * clock.random.random())

    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    while (now := clock.monotonic() - start) < SECONDS:
        points.append((now, limit.limit))
        await asyncio.sleep(0.2)
    for task in clients:
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return points


def chart() -> Chart:
    """Run the simulation, and return its chart."""
    with fixed_time(), seeded(1):
        points = asyncio.run(_run())
    return Chart(
        title="AdaptiveLimit: 100 clients of a server that takes 40, then 20, then 40 calls at once",
        x_label="seconds",
        y_label="calls at once",
        x_max=SECONDS,
        y_max=50,
        x_step=10,
        y_step=10,
        lines=[Line("limit", points), Line("capacity of the server", steps(CAPACITY, SECONDS), dashed=True)],
    )
