"""Guarded generator functions: the first item is the head of the call, and permits are held to the end."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    DeadlineExceededError,
    Fallback,
    Hedge,
    Pipeline,
    RejectedError,
    Retry,
    RetryBudget,
    Timeout,
    UsageError,
    backoff,
    remaining,
)
from resilience._util.clock import clock
from resilience.events import AttemptEnded, CallEnded, RetryScheduled
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario
from tests.support.loops import Run, each_loop, on_asyncio

NOW = backoff.none()
Way = Callable[[Pipeline[Any], "Source"], Any]

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class Source:
    """Items of a dependency: `failures` calls fail before the first one; then comes `items`, and last `error`."""

    def __init__(self, *items: Any, failures: int = 0, error: BaseException | None = None) -> None:
        self.items = items
        self.failures = failures
        self.error = error
        self.calls = 0
        self.open = 0

    def _begin(self) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError("no answer")

    def plain(self) -> Generator[Any, Any, str]:
        self._begin()
        self.open += 1
        try:
            yield from self.items
            if self.error is not None:
                raise self.error
            return "the end"
        finally:
            self.open -= 1

    async def awaited(self) -> AsyncGenerator[Any, Any]:
        await anyio.lowlevel.checkpoint()
        self._begin()
        self.open += 1
        try:
            for item in self.items:
                yield item
                await anyio.lowlevel.checkpoint()
            if self.error is not None:
                raise self.error
        finally:
            self.open -= 1


def plainly(pipeline: Pipeline[Any], source: Source) -> list[Any]:
    return list(pipeline(source.plain)())


async def _collected(pipeline: Pipeline[Any], source: Source) -> list[Any]:
    return [item async for item in pipeline(source.awaited)()]


def on_loop(run: Run, pipeline: Pipeline[Any], source: Source) -> list[Any]:
    items: list[Any] = run(lambda: _collected(pipeline, source))
    return items


def in_asyncio(pipeline: Pipeline[Any], source: Source) -> list[Any]:
    return on_loop(on_asyncio, pipeline, source)


each_way = pytest.mark.parametrize("way", [plainly, in_asyncio])


def guards() -> tuple[Bulkhead, CircuitBreaker, Pipeline[Any]]:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    return bulkhead, breaker, Pipeline(Retry(3, wait=NOW), bulkhead, breaker)


@each_way
def test_it_is_retried_up_to_the_first_item(way: Way) -> None:
    bulkhead, breaker, pipeline = guards()
    source = Source(1, 2, failures=2)

    with Recorder(pipeline) as recorder:
        assert way(pipeline, source) == [1, 2]

    assert source.calls == 3
    assert len(recorder.of(RetryScheduled)) == 2
    assert [one.outcome for one in recorder.of(AttemptEnded)] == ["failed", "failed", "ok"]
    assert (bulkhead.in_flight, breaker.snapshot()["calls"], breaker.snapshot()["failures"]) == (0, 3, 2)


@each_way
def test_what_fails_later_is_not_repeated_and_counts_once(way: Way) -> None:
    bulkhead, breaker, pipeline = guards()
    source = Source(1, 2, error=ConnectionError("cut"))

    with pytest.raises(ConnectionError, match="cut"):
        way(pipeline, source)

    assert (source.calls, source.open, bulkhead.in_flight) == (1, 0, 0)
    assert (breaker.snapshot()["calls"], breaker.snapshot()["failures"]) == (1, 1)


@each_way
def test_it_may_have_no_items(way: Way) -> None:
    bulkhead, breaker, pipeline = guards()

    assert way(pipeline, Source()) == []

    assert (bulkhead.in_flight, breaker.snapshot()["calls"], breaker.snapshot()["failures"]) == (0, 1, 0)


@each_way
def test_what_is_not_admitted_is_not_called(way: Way) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    source = Source(1)

    with pytest.raises(RejectedError):
        way(Pipeline(breaker), source)

    assert source.calls == 0


def test_permits_are_held_until_it_is_exhausted() -> None:
    bulkhead, breaker, pipeline = guards()
    items = pipeline(Source(1, 2).plain)()
    assert bulkhead.in_flight == 0

    assert next(items) == 1
    assert (bulkhead.in_flight, pipeline.snapshot()["in_flight"], breaker.snapshot()["calls"]) == (1, 1, 0)
    with pytest.raises(BulkheadFullError):
        pipeline.call(int)
    assert list(items) == [2]
    assert (bulkhead.in_flight, pipeline.snapshot()["in_flight"], breaker.snapshot()["calls"]) == (0, 0, 1)


@pytest.mark.parametrize("end", ["close", "drop", "throw"])
def test_and_until_it_is_closed_thrown_into_or_dropped(end: str) -> None:
    bulkhead, breaker, pipeline = guards()
    source = Source(1, 2)
    items: Generator[Any, Any, str] | None = pipeline(source.plain)()
    assert items is not None
    next(items)

    if end == "close":
        items.close()
        items.close()
    elif end == "throw":
        with pytest.raises(KeyError):
            items.throw(KeyError("mine"))
    else:
        items = None
        gc.collect()

    assert (source.open, bulkhead.in_flight, pipeline.snapshot()["in_flight"]) == (0, 0, 0)
    assert breaker.snapshot()["calls"] == (0 if end == "throw" else 1)
    assert breaker.snapshot()["failures"] == 0


@each_loop
@pytest.mark.parametrize("end", ["exhausted", "aclose", "athrow"])
def test_so_it_is_in_tasks(run: Run, end: str) -> None:
    bulkhead, breaker, pipeline = guards()
    source = Source(1, 2)

    async def main() -> None:
        items = pipeline(source.awaited)()
        assert await anext(items) == 1
        assert (bulkhead.in_flight, source.open) == (1, 1)
        if end == "exhausted":
            assert [item async for item in items] == [2]
        elif end == "aclose":
            await items.aclose()
        else:
            with pytest.raises(KeyError):
                await items.athrow(KeyError("mine"))
        assert (source.open, bulkhead.in_flight, pipeline.snapshot()["in_flight"]) == (0, 0, 0)

    run(main)
    assert breaker.snapshot()["calls"] == (0 if end == "athrow" else 1)


def test_one_that_is_dropped_in_a_task_gives_its_permits_back() -> None:
    bulkhead, _, pipeline = guards()

    async def main() -> int:
        items: AsyncGenerator[Any, Any] | None = pipeline(Source(1, 2).awaited)()
        assert items is not None
        await anext(items)
        items = None
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        return bulkhead.in_flight

    assert asyncio.run(main()) == 0


def test_one_that_was_never_begun_calls_nothing() -> None:
    bulkhead, _, pipeline = guards()
    source = Source(1)

    pipeline(source.plain)().close()

    assert (source.calls, bulkhead.in_flight) == (0, 0)


def test_values_and_exceptions_are_sent_into_it() -> None:
    @Pipeline(Retry(3, wait=NOW), name="echoes")
    def echo() -> Generator[Any, Any, str]:
        got: list[Any] = []
        while len(got) < 3:
            try:
                got.append((yield len(got)))
            except KeyError as error:
                got.append(error.args[0])
        return str(got)

    items = echo()
    assert [next(items), items.send("a"), items.throw(KeyError("b"))] == [0, 1, 2]
    with pytest.raises(StopIteration) as stop:
        items.send("c")
    assert stop.value.value == "['a', 'b', 'c']"


@each_loop
def test_so_they_are_into_an_async_one(run: Run) -> None:
    @Pipeline(Retry(3, wait=NOW), name="async echoes")
    async def echo() -> AsyncGenerator[Any, Any]:
        got: list[Any] = []
        while len(got) < 3:
            try:
                got.append((yield list(got)))
            except KeyError as error:
                got.append(error.args[0])

    async def main() -> None:
        items = echo()
        assert [await anext(items), await items.asend("a")] == [[], ["a"]]
        assert await items.athrow(KeyError("b")) == ["a", "b"]
        with pytest.raises(StopAsyncIteration):
            await items.asend("c")

    run(main)


@each_loop
def test_the_timeout_of_the_whole_call_cuts_a_silence(run: Run) -> None:
    breaker, bulkhead = CircuitBreaker(), Bulkhead(1)
    ended: list[str] = []

    @Pipeline(Timeout(2.0), Retry(3, wait=NOW), bulkhead, breaker, name="silent")
    async def silent() -> AsyncGenerator[int]:
        try:
            yield 1
            await anyio.sleep(60)
            yield 2
        finally:
            ended.append("closed")

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            async for _ in silent():
                pass

    run(main)
    assert (ended, bulkhead.in_flight) == (["closed"], 0)
    assert breaker.snapshot()["failures"] == 1


@each_loop
def test_the_timeout_of_an_attempt_bounds_the_first_item_only(run: Run) -> None:
    calls = 0

    @Pipeline(Timeout(100.0), Retry(3, wait=NOW), Timeout(1.0), name="slow start")
    async def pages() -> AsyncGenerator[int]:
        nonlocal calls
        calls += 1
        await anyio.sleep(60 if calls == 1 else 0.5)
        yield 1
        await anyio.sleep(5)
        yield 2

    async def main() -> list[int]:
        return [item async for item in pages()]

    assert run(main) == [1, 2]
    assert calls == 2


def test_a_plain_one_is_cut_at_its_next_item(virtual_clock: VirtualClock) -> None:
    bulkhead = Bulkhead(1)
    source = Source(1, 2, 3)
    items = Pipeline(Timeout(2.0), bulkhead)(source.plain)()
    assert next(items) == 1
    virtual_clock.advance(1.0)
    assert next(items) == 2
    virtual_clock.advance(1.0)

    with pytest.raises(DeadlineExceededError):
        next(items)

    assert (source.open, bulkhead.in_flight) == (0, 0)


def test_the_code_up_to_the_first_item_sees_the_deadline(virtual_clock: VirtualClock) -> None:
    del virtual_clock

    @Pipeline(Timeout(2.0), name="sees")
    def look() -> Iterator[float | None]:
        yield remaining()

    assert list(look()) == [2.0]


@pytest.mark.parametrize("harness", RUNNERS)
@pytest.mark.parametrize("failures", [0, 1])
def test_nothing_is_left_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], failures: int
) -> None:
    def scenario() -> Scenario:
        bulkhead, breaker, pipeline = guards()
        source = Source(1, 2, failures=failures)

        def check() -> str | None:
            left = source.open, bulkhead.in_flight, pipeline.snapshot()["in_flight"], breaker.snapshot()["failures"]
            return None if left[:3] == (0, 0, 0) and left[3] <= failures else f"left {left}"

        async def call() -> Any:
            items = pipeline(source.awaited)()
            try:
                return [item async for item in items]
            finally:
                await items.aclose()

        return Scenario(call=call, check=check)

    harness(scenario).must_hold()


def test_a_probe_is_held_to_the_end(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    pipeline = Pipeline(breaker)
    with pytest.raises(ConnectionError):
        plainly(pipeline, Source(failures=1))
    virtual_clock.advance(1.0)
    items = pipeline(Source(1, 2).plain)()
    next(items)

    with pytest.raises(RejectedError):
        pipeline.call(int)
    assert breaker.snapshot()["state"] == "half_open"
    items.close()
    assert breaker.snapshot()["state"] == "closed"


def test_a_drain_waits_for_it(virtual_clock: VirtualClock) -> None:
    del virtual_clock
    pipeline = Pipeline(Bulkhead(1))
    items = pipeline(Source(1, 2).plain)()
    next(items)

    assert not pipeline.drain(0.1)
    items.close()
    assert pipeline.drain(0.1)


@each_loop
def test_the_generator_that_loses_a_race_is_closed(run: Run) -> None:
    opened: list[int] = []
    closed: list[int] = []

    async def pages() -> AsyncGenerator[int]:
        number = len(opened)
        opened.append(number)
        try:
            await anyio.sleep(1.0 if number == 0 else 0.1)
            yield number
            await anyio.sleep(1.0)
            yield number
        finally:
            closed.append(number)

    bulkhead = Bulkhead(5)
    guarded = Pipeline(Hedge(0.5, budget=None), bulkhead).bind(idempotent=True)(pages)

    async def main() -> list[int]:
        return [item async for item in guarded()]

    assert run(main) == [1, 1]
    assert (opened, sorted(closed), bulkhead.in_flight) == ([0, 1], [0, 1], 0)


@each_way
def test_the_items_of_a_fallback_take_its_place(way: Way) -> None:
    pipeline = Pipeline(Fallback(value=[7, 8]), Retry(2, wait=NOW))

    assert way(pipeline, Source(failures=5)) == [7, 8]


@each_way
@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_in_other_modes_it_is_called_once(way: Way, mode: Any) -> None:
    source = Source(1, failures=1)

    with pytest.raises(ConnectionError):
        way(Pipeline(Retry(3, wait=NOW, mode=mode), Bulkhead(1, mode=mode)), source)

    assert source.calls == 1


@each_way
def test_a_success_pays_into_the_budget_once(way: Way) -> None:
    budget = RetryBudget(ratio=0.5, capacity=10, initial=1)

    way(Pipeline(Retry(3, wait=NOW), budget=budget), Source(1, 2, 3))

    assert budget.tokens == 1.5


@each_way
def test_a_call_has_ended_when_its_first_item_is_there(way: Way) -> None:
    pipeline = Pipeline(Retry(3, wait=NOW))

    with Recorder(pipeline) as recorder:
        way(pipeline, Source(1, 2))

    (event,) = recorder.of(CallEnded)
    assert (event.outcome, event.attempts, event.operation) == ("ok", 1, event.operation)
    assert event.operation in ("Source.plain", "Source.awaited")


class Pages:
    def __call__(self, count: int) -> Iterator[int]:
        yield from range(count)

    @Pipeline(Retry(2), name="methods")
    def method(self, count: int) -> Iterator[int]:
        yield from range(count)

    @Pipeline(Retry(2), name="class methods")
    @classmethod
    def of_class(cls, count: int) -> Iterator[int]:
        yield from range(count)


def test_it_stays_a_generator_function() -> None:
    pipeline = Pipeline(Retry(2))
    plain, awaited = pipeline(Source(1).plain), pipeline(Source(1).awaited)

    assert inspect.isgeneratorfunction(plain)
    assert inspect.isasyncgenfunction(awaited)
    assert inspect.signature(pipeline(Pages().method)) == inspect.signature(Pages().method)


@pytest.mark.parametrize("function", [Pages(), functools.partial(Pages().method), Pages().method, Pages.of_class])
def test_other_callables_that_generate(function: Callable[[int], Iterator[int]]) -> None:
    bulkhead = Bulkhead(1)

    assert list(Pipeline(bulkhead)(function)(3)) == [0, 1, 2]
    assert bulkhead.in_flight == 0


def test_a_late_first_item_is_used_and_the_next_one_is_not_waited_for() -> None:
    with virtual_time() as virtual:
        source = Source(1, 2)

        @Pipeline(Timeout(1.0), name="late")
        def late() -> Iterator[int]:
            virtual.advance(2.0)
            yield from source.plain()

        items = late()
        assert next(items) == 1
        with pytest.raises(DeadlineExceededError):
            next(items)
    assert source.open == 0


@each_loop
def test_one_that_waits_while_its_deadline_passes_is_closed_before_its_permits_come_back(run: Run) -> None:
    bulkhead = Bulkhead(1)
    seen: list[int] = []

    @Pipeline(Timeout(2.0), bulkhead, name="slow user")
    async def pages() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            await anyio.lowlevel.checkpoint()
            seen.append(bulkhead.in_flight)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            async for _ in pages():
                await anyio.sleep(5)
        assert seen == [1]

    run(main)
    assert bulkhead.in_flight == 0


@each_loop
def test_what_is_done_about_a_thrown_exception_is_bounded_too(run: Run) -> None:
    @Pipeline(Timeout(2.0), name="slow to recover")
    async def pages() -> AsyncGenerator[int]:
        try:
            yield 1
        except KeyError:
            await anyio.sleep(60)
        yield 2

    async def main() -> float:
        items = pages()
        await anext(items)
        started = clock.monotonic()
        with pytest.raises(DeadlineExceededError):
            await items.athrow(KeyError())
        return clock.monotonic() - started

    assert run(main) == pytest.approx(2.0)


def test_a_plain_one_is_closed_before_its_permits_come_back(virtual_clock: VirtualClock) -> None:
    bulkhead = Bulkhead(1)
    seen: list[int] = []

    @Pipeline(Timeout(2.0), bulkhead, name="slow plain user")
    def pages() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            seen.append(bulkhead.in_flight)

    with pytest.raises(DeadlineExceededError):
        for _ in pages():
            virtual_clock.advance(5)

    assert (seen, bulkhead.in_flight) == ([1], 0)


@each_loop
def test_an_async_iterator_may_take_the_place_of_an_async_one(run: Run) -> None:
    pipeline = Pipeline(Fallback(lambda error: Source(7, 8).awaited()))

    assert on_loop(run, pipeline, Source(failures=5)) == [7, 8]


@each_way
def test_a_replacement_without_items_is_an_error_that_says_so(way: Way) -> None:
    with pytest.raises(UsageError, match="let it give a list of items"):
        way(Pipeline(Fallback(value=None)), Source(failures=5))
