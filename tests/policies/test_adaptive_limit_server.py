"""An adaptive limit in front of a simulated server: it finds how much that takes, and again when it takes less."""

from __future__ import annotations

import statistics

import anyio
import pytest

from resilience import AdaptiveLimit, Allowlist, BulkheadFullError, Failure, FailureKind, Pipeline, Timeout
from resilience._util.clock import clock
from resilience.testing import seeded
from tests.support.loops import Run, on_asyncio, on_trio

pytestmark = pytest.mark.no_cover  # simulations, which take three times as long with it

LATENCY = 0.1
CLIENTS = 100


class OverloadedError(Exception):
    """What the server answers above its capacity, as a 503 does."""


SHED = Allowlist(OverloadedError, when=lambda error: Failure(FailureKind.OVERLOAD))


class Server:
    """Serves so many at once, in 0.1 s, and sheds the others."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.busy = 0
        self.served = 0
        self.shed = 0

    async def serve(self) -> None:
        if self.busy >= self.capacity:
            self.shed += 1
            await anyio.sleep(LATENCY / 10)
            raise OverloadedError
        self.busy += 1
        try:
            await anyio.sleep(LATENCY * clock.random.uniform(0.8, 1.2))
            self.served += 1
        finally:
            self.busy -= 1


class Slow:
    """Serves everybody, the more there are, the slower: with `knee` at once, each takes 0.1 s."""

    def __init__(self, knee: int) -> None:
        self.knee = knee
        self.busy = 0

    async def serve(self) -> None:
        self.busy += 1
        try:
            await anyio.sleep(LATENCY * self.busy / self.knee * clock.random.uniform(0.95, 1.05))
        finally:
            self.busy -= 1


async def load(limit: AdaptiveLimit, server: Server | Slow, phases: list[int], seconds: float) -> list[float]:
    """Have clients call all the time; return the mean limit in the second half of each phase, a capacity each."""
    pipeline = Pipeline(limit, Timeout(2 * LATENCY), failures=SHED)
    means: list[float] = []

    async def client() -> None:
        while True:
            try:
                await pipeline.acall(server.serve)
            except (OverloadedError, TimeoutError, BulkheadFullError):
                await anyio.sleep(LATENCY * clock.random.random())

    async with anyio.create_task_group() as group:
        for _ in range(CLIENTS):
            group.start_soon(client)
        for capacity in phases:
            if isinstance(server, Server):
                server.capacity = capacity
            else:
                server.knee = capacity
            await anyio.sleep(seconds / 2)
            samples: list[int] = []
            while len(samples) < seconds / 2 / LATENCY:
                samples.append(limit.limit)
                await anyio.sleep(LATENCY)
            means.append(statistics.fmean(samples))
        group.cancel_scope.cancel()
    return means


@pytest.mark.parametrize(("run", "queue"), [(on_asyncio, 0), (on_trio, 100)])
def test_it_finds_the_knee_and_finds_it_again_after_the_capacity_halves(run: Run, queue: int) -> None:
    limit = AdaptiveLimit(queue=queue)
    server = Server(40)
    with seeded(3):
        means: list[float] = run(lambda: load(limit, server, [40, 20, 40], 10.0))
    print(means, server.served, server.shed)

    for mean, capacity in zip(means, [40, 20, 40], strict=True):
        assert 0.8 * capacity <= mean <= 1.2 * capacity
    assert server.shed < server.served / 20
    assert (limit.in_flight, limit.queued) == (0, 0)


def test_timeouts_lower_it_where_nothing_is_shed() -> None:
    limit = AdaptiveLimit(queue=100)
    with seeded(3):
        means: list[float] = on_asyncio(lambda: load(limit, Slow(15), [15, 30], 10.0))
    print(means)

    for mean, knee in zip(means, [15, 30], strict=True):  # at twice the knee, calls time out
        assert 1.5 * knee <= mean <= 2.2 * knee


def test_without_load_it_stays_where_it_is() -> None:
    limit = AdaptiveLimit(20)

    async def main() -> None:
        pipeline = Pipeline(limit)
        for _ in range(200):
            await pipeline.acall(Server(1).serve)

    on_asyncio(main)

    assert limit.limit == 20
