"""The load: the same calls at the same times in each arm, whatever comes back (an open loop)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from resilience._demo.arms import Client
from resilience._demo.records import Arrival, CallRecord, Records
from resilience._demo.script import ORDER_SHARE, Arm, ServiceName, Span, span_at
from resilience._util.clock import clock


def arrivals(key: str, rate: float, seconds: float, *, order_share: float = ORDER_SHARE) -> Iterator[Arrival]:
    """Yield the calls of one service: a Poisson process.

    Args:
        key: what the random numbers come from, such as "http 7": the name of the service and the seed.
        rate: the calls per second.
        seconds: the time during which they arrive.
        order_share: the share of orders.
    """
    chance = random.Random(key)
    due, number = chance.expovariate(rate), 0
    while due < seconds:
        yield Arrival(number, due, chance.random() < order_share)
        due += chance.expovariate(rate)
        number += 1


async def drive(
    service: ServiceName,
    clients: Mapping[Arm, Client],
    calls: Iterable[Arrival],
    day: Sequence[Span],
    records: Records,
    ended: Callable[[CallRecord], object],
) -> None:
    """Make calls, each at its time and in a task of its own in each arm; returns when all have ended.

    Args:
        service: the service.
        clients: the client of each arm.
        calls: the calls.
        day: the phases.
        records: gets what became of the calls.
        ended: is called for each call that has ended.
    """

    async def make(arm: Arm, client: Client, arrival: Arrival) -> None:
        begin = clock.monotonic()
        records.lag = max(records.lag, begin - records.began - arrival.due)
        served = await client.call(arrival)
        phase = span_at(day, arrival.due).phase.name
        record = CallRecord(service, arm, arrival, phase, served, clock.monotonic() - begin)
        records.calls.append(record)
        ended(record)

    async with asyncio.TaskGroup() as tasks:
        for arrival in calls:
            wait = records.began + arrival.due - clock.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            for arm, client in clients.items():
                tasks.create_task(make(arm, client, arrival))
