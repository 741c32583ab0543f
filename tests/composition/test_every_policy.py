"""A pipeline with every policy at once: whatever ends its calls, every permit, slot and probe comes back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from typing import Any

import anyio
import pytest
import trio

from resilience import (
    AdaptiveLimit,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Cooldown,
    Fallback,
    Hedge,
    Partition,
    Pipeline,
    RateLimit,
    Retry,
    RetryBudget,
    StaleCache,
    Timeout,
    backoff,
)
from tests.support.overload import Overloaded, busy
from tests.support.threads import wait_until

CALLS = 60
THREADS = 8


class Everything:
    """Every policy, in a usual order, and the sync and async functions that it guards."""

    def __init__(self, name: str) -> None:
        self.outer, self.inner = Bulkhead(40, queue=100, max_wait=5.0), Bulkhead(30, queue=50, max_wait=5.0)
        self.adaptive = AdaptiveLimit(30, min_limit=5, queue=50, max_wait=5.0)
        self.rate = RateLimit(20_000, per=1.0, burst=200)
        self.cooldown, self.breaker = Cooldown(), CircuitBreaker(open_for=0.01, failure_rate=0.95)
        self.by_key = Partition(lambda: Bulkhead(20, queue=50, max_wait=5.0), by=lambda call: call.args[0] % 3)
        self.pipeline: Pipeline[Any] = Pipeline(
            Fallback(value="instead"),
            StaleCache(key=lambda call: call.args[0] % 7),
            self.outer,
            Timeout(2.0),
            Retry(3, wait=backoff.full_jitter(0.001, cap=0.01)),
            Hedge(0.002, max_hedges=2),
            self.cooldown,
            self.rate,
            self.adaptive,
            self.by_key,
            self.inner,
            self.breaker,
            Timeout(0.5),
            Chaos(0.05, error=ConnectionError, enabled=True),
            budget=RetryBudget(ratio=1.0, capacity=1000.0),
            failures=busy,
            name=name,
        )
        self.running = 0
        self.lock = threading.Lock()

    def counted(self, by: int) -> None:
        with self.lock:
            self.running += by

    def work(self, number: int, chance: random.Random) -> str:
        self.counted(1)
        try:
            self.end(chance.random())
            return "plain"
        finally:
            self.counted(-1)

    async def work_async(self, number: int, chance: random.Random) -> str:
        self.counted(1)
        try:
            await anyio.sleep(chance.choice([0.0, 0.001, 0.004]))
            self.end(chance.random())
            return "awaited"
        finally:
            self.counted(-1)

    def end(self, luck: float) -> None:
        if luck < 0.1:
            raise ConnectionError
        if luck < 0.13:
            raise Overloaded(pause=0.001)
        if luck < 0.16:
            raise KeyError("mistake")

    def left(self) -> dict[str, int]:
        """Return what is still held."""
        held = {
            "running": self.running,
            "outer": self.outer.in_flight,
            "inner": self.inner.in_flight,
            "adaptive": self.adaptive.in_flight,
            "by key": sum(bulkhead.in_flight for bulkhead in self.by_key.policies()),
            "calls": self.pipeline.snapshot()["in_flight"],
        }
        for name in ("outer", "inner", "adaptive", "rate", "cooldown"):
            held[f"queued for {name}"] = getattr(self, name).queued
        return {name: count for name, count in held.items() if count}


def in_thread(everything: Everything, seed: int, ended: list[int]) -> None:
    chance = random.Random(seed)
    guarded = everything.pipeline.bind(idempotent=True)(everything.work)
    for number in range(CALLS):
        with contextlib.suppress(Exception):
            guarded(number, chance)
        ended.append(number)


async def in_loop(everything: Everything, seed: int, ended: list[int]) -> None:
    """Make calls in tasks, and cancel a third of them at some moment."""
    chance = random.Random(seed)
    guarded = everything.pipeline.bind(idempotent=True)(everything.work_async)

    async def one(number: int, patience: float) -> None:
        with anyio.move_on_after(patience), contextlib.suppress(Exception):
            await guarded(number, chance)
        ended.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3 * CALLS):
            group.start_soon(one, number, chance.choice([0.0, 0.001, 0.003, 60.0, 60.0, 60.0]))
            if number % 5 == 0:
                await anyio.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_permit_comes_back_from_threads_and_both_loops(seed: int) -> None:
    everything = Everything(f"every policy, seed {seed}")
    ended: list[int] = []
    jobs = [threading.Thread(target=in_thread, args=(everything, seed + n, ended)) for n in range(THREADS)]
    jobs += [
        threading.Thread(target=asyncio.run, args=(in_loop(everything, seed + 100, ended),)),
        threading.Thread(target=trio.run, args=(in_loop, everything, seed + 200, ended)),
    ]

    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)

    assert not any(job.is_alive() for job in jobs)
    assert len(ended) == THREADS * CALLS + 2 * 3 * CALLS
    wait_until(lambda: everything.left() == {})  # threads that have lost a race end after their calls
    assert everything.breaker.snapshot()["state"] in ("closed", "open", "half_open")
