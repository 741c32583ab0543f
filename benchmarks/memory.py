"""How much memory an instance takes, and whether calls leave anything behind."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import repeat
from time import monotonic
from typing import Any

from benchmarks import ours
from benchmarks.bars import Missing
from benchmarks.calls import flaky, function, with_failures
from benchmarks.peer_breakers import BREAKERS
from benchmarks.peers import ASYNCIO, SYNC, Guard
from benchmarks.rounds import Found
from resilience import CircuitBreaker

INSTANCES = 200
REPEATS = 3
USED = 40
WINDOW = 0.02
"""Seconds: short, so that the windows of so many breakers fill soon, one after the other."""
WARM = 1.5
"""Seconds in which a window of a second fills, before growth is looked at."""


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def size(make: Callable[[], object], use: Callable[[Any], object] | None = None) -> float:
    """Bytes per instance; with `use`, of an instance that has been used."""
    kept: list[object] = [None] * INSTANCES
    before = traced()
    for number in range(INSTANCES):
        kept[number] = make()
    if use is not None:
        for instance in kept:
            use(instance)
    return (traced() - before) / INSTANCES


def call_twice(flaky: Callable[[], object]) -> None:
    """Once it fails, once it does not."""
    with suppress(ConnectionError):
        flaky()
    flaky()


def size_in_use() -> float:
    """Bytes of a breaker whose window has filled: ten buckets, with calls and failures in each.

    What it is used through, a pipeline, is made in between and does not count.
    """
    before = traced()
    kept = [CircuitBreaker(window=WINDOW, failure_rate=1.0, consecutive_failures=None) for _ in range(USED)]
    made = traced() - before
    guarded = [breaker(flaky(SYNC)) for breaker in kept]
    for call in guarded:
        call_twice(call)
    before = traced()
    for call in guarded:
        until = monotonic() + 1.5 * WINDOW
        while monotonic() < until:
            call_twice(call)
    return (made + traced() - before) / USED


def growth(calls: int) -> float:
    """Bytes that so many calls through a whole pipeline leave behind; every tenth of them fails once."""
    good, bad = ours.short_pipeline()(function(SYNC)), ours.short_pipeline()(flaky(SYNC))

    def work(count: int) -> None:
        for _ in repeat(None, count // 10):
            for _ in repeat(None, 9):
                good()
            bad()

    until = monotonic() + WARM
    while monotonic() < until:
        work(1000)
    before = traced()
    work(calls)
    return traced() - before


def growth_asyncio(calls: int) -> float:
    """The same on asyncio; the loop turns every thousand calls, as it would in a program."""
    good, bad = ours.short_pipeline()(function(ASYNCIO)), ours.short_pipeline()(flaky(ASYNCIO))

    async def work(count: int) -> None:
        for number in range(count // 10):
            for _ in repeat(None, 9):
                await good()
            await bad()
            if number % 100 == 0:
                await asyncio.sleep(0)

    async def main() -> float:
        until = monotonic() + WARM
        while monotonic() < until:
            await work(1000)
        before = traced()
        await work(calls)
        return traced() - before

    return asyncio.run(main())


def measure(calls: int) -> Found:
    """Weigh everything, with `calls` for the growth."""
    found = Found()
    tracemalloc.start(1)
    try:
        found.series["resilience CircuitBreaker"] = [size(CircuitBreaker) for _ in range(REPEATS)]
        found.series["resilience CircuitBreaker, in use"] = [size_in_use() for _ in range(REPEATS)]
        for name, guard in ours.SUCCESS.items():
            found.series[f"a function behind {name}"] = [size(partial(_guarded, guard), _call)]
        for peer in BREAKERS:
            name = f"a function behind {peer.name}"
            try:
                found.series[name] = [size(partial(_guarded, with_failures(peer, 5)), _call)]
            except Exception as error:
                found.missing[name] = Missing(peer.package, f"{type(error).__name__}: {error}")
        found.series["growth, sync"] = [growth(calls)]
        found.series["growth, asyncio"] = [growth_asyncio(calls)]
    finally:
        tracemalloc.stop()
    return found


def _guarded(guard: Guard) -> Any:
    return guard(function(SYNC))


def _call(guarded: Any) -> None:
    guarded()
