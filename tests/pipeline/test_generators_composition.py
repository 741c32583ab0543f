"""Guarded generators in nested pipelines, races and threads, and behind policies that look at results."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    DeadlineExceededError,
    Hedge,
    Partition,
    Pipeline,
    RateLimit,
    Retry,
    StaleCache,
    Timeout,
    backoff,
    remaining,
)
from resilience._util.clock import clock
from resilience.testing import VirtualClock
from tests.support.loops import Run, each_loop
from tests.support.threads import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class Refused(Exception):
    """A failure for those pipelines only that list it."""


def fails_later() -> Generator[int]:
    yield 1
    raise Refused


async def fails_later_async() -> AsyncGenerator[int]:
    yield 1
    raise Refused


def plainly(pipeline: Pipeline[Any]) -> None:
    for _ in pipeline(fails_later)():
        pass


def awaited(pipeline: Pipeline[Any]) -> None:
    async def main() -> None:
        async for _ in pipeline(fails_later_async)():
            pass

    anyio.run(main)


@pytest.mark.parametrize("way", [plainly, awaited])
@pytest.mark.parametrize("listed", ["inside", "outside"])
def test_each_pipeline_judges_the_end_by_its_own_list(way: Callable[[Pipeline[Any]], None], listed: str) -> None:
    inner_breaker, outer_breaker = CircuitBreaker(), CircuitBreaker()
    lists: dict[str, Any] = {listed: Refused}
    inner = Pipeline(inner_breaker, failures=lists.get("inside"), name="inner")
    outer = Pipeline(outer_breaker, inner, failures=lists.get("outside"), name="outer")

    with pytest.raises(Refused):
        way(outer)

    counted = inner_breaker.snapshot()["failures"], outer_breaker.snapshot()["failures"]
    assert counted == ((1, 0) if listed == "inside" else (0, 1))


def test_one_that_is_dropped_in_a_nested_pipeline_frees_all_permits() -> None:
    inner, outer = Bulkhead(1), Bulkhead(1)
    items: Any = Pipeline(outer, Pipeline(inner, failures=Refused))(fails_later)()
    next(items)
    assert (inner.in_flight, outer.in_flight) == (1, 1)

    del items
    gc.collect()

    assert (inner.in_flight, outer.in_flight) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("outer", [lambda: Timeout(60, thread=True), lambda: Hedge(0.2, budget=None)])
def test_the_deadline_of_an_attempt_on_another_thread_bounds_the_body(outer: Callable[[], Any]) -> None:
    bulkhead = Bulkhead(1)

    @Pipeline(outer(), Timeout(0.25), Timeout(0.24), bulkhead, name="on a thread").bind(idempotent=True)
    def pages() -> Iterator[int]:
        yield 1
        wait_until(lambda: clock.monotonic() > begun + 0.3)
        yield 2
        yield 3

    begun = clock.monotonic()
    seen: list[int] = []
    with pytest.raises(DeadlineExceededError):
        for item in pages():
            seen.append(item)

    assert (seen, bulkhead.in_flight) == ([1, 2], 0)


@each_loop
def test_the_deadline_of_the_attempt_that_wins_a_race_bounds_the_body(run: Run) -> None:
    started: list[float] = []

    @Pipeline(Hedge(2.0, budget=None), Timeout(3.0), name="raced deadline").bind(idempotent=True)
    async def pages() -> AsyncGenerator[int]:
        started.append(clock.monotonic())
        if len(started) == 1:
            await anyio.sleep(60)
        yield 1
        await anyio.sleep(60)

    async def main() -> float:
        with pytest.raises(DeadlineExceededError):
            async for _ in pages():
                pass
        return clock.monotonic() - started[1]

    assert run(main) == pytest.approx(3.0)


@each_loop
def test_a_loser_gives_its_permit_back_at_once_when_it_is_closed(run: Run) -> None:
    bulkhead = Bulkhead(5)
    begun = 0

    async def pages() -> AsyncGenerator[int]:
        nonlocal begun
        begun += 1
        number = begun
        await anyio.lowlevel.checkpoint()
        yield number

    guarded = Pipeline(Hedge(0.0, max_hedges=3, budget=None), bulkhead).bind(idempotent=True)(pages)

    async def main() -> None:
        async for _ in guarded():
            assert bulkhead.in_flight == 1
        assert bulkhead.in_flight == 0

    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


def test_what_has_ended_with_an_exception_is_freed_at_once() -> None:
    """The exception holds the frames of the generator, which must not hold what holds the exception."""

    @Pipeline(Timeout(60), Bulkhead(1), CircuitBreaker(), name="freed")
    def pages() -> Iterator[int]:
        yield 1
        raise KeyError

    def once() -> None:
        with pytest.raises(KeyError):
            list(pages())

    once()
    gc.collect()
    gc.disable()
    try:
        once()
        before = sum(type(one).__name__ in ("GeneratorCall", "Head", "KeyError") for one in gc.get_objects())
        for _ in range(20):
            once()
        after = sum(type(one).__name__ in ("GeneratorCall", "Head", "KeyError") for one in gc.get_objects())
    finally:
        gc.enable()
    assert after == before
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("key", [None, lambda call: "all"])
def test_a_stale_cache_keeps_no_generator_also_if_it_has_no_items(key: Any) -> None:
    cache = StaleCache(key) if key is not None else StaleCache()
    calls = 0

    @Pipeline(cache, name="cached")
    def pages() -> Iterator[int]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError
        return
        yield

    assert list(pages()) == []
    with pytest.raises(ConnectionError):
        list(pages())
    assert cache.snapshot()["entries"] == 0


@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("items", [0, 2])
def test_neither_allowlists_nor_actual_are_asked_about_a_generator(partitioned: bool, items: int) -> None:
    asked: list[object] = []

    def limit() -> RateLimit:
        return RateLimit(1e6, burst=100, actual=asked.append)

    def is_bad(result: object) -> bool:
        asked.append(result)
        return True

    gate: Any = Partition(limit) if partitioned else limit()
    begun = 0

    @Pipeline(Retry(3, wait=backoff.none()), gate, failures=Allowlist.of_results(is_bad), name="not asked")
    def pages() -> Iterator[int]:
        nonlocal begun
        begun += 1
        yield from range(items)

    assert list(pages()) == list(range(items))
    assert (asked, begun) == ([], 1)


def test_the_code_of_a_plain_one_sees_its_deadline_to_the_end(virtual_clock: VirtualClock) -> None:
    @Pipeline(Timeout(9.0, idle=2.0), name="sees all")
    def pages() -> Iterator[float | None]:
        yield remaining()
        virtual_clock.advance(1.0)
        yield remaining()
        virtual_clock.advance(1.5)
        yield remaining()

    seen: list[float | None] = []
    for left in pages():
        seen.append(left)
        virtual_clock.advance(1.0)

    assert seen == [9.0, 1.0, 0.5]
    assert remaining() is None
