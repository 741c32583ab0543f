"""What people write: policies in the usual orders, and in some unusual ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import pytest
import tenacity

from resilience import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    Hedge,
    Partition,
    Pipeline,
    ResilienceWarning,
    Retry,
    Timeout,
    backoff,
)
from resilience.events import HedgeStarted, RetryScheduled
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import Failing
from tests.support.loops import Run, each_loop
from tests.support.ways import Make, each_way

F = TypeVar("F", bound=Callable[..., Any])
AT_ONCE = backoff.none()


def three_times(**more: Any) -> Callable[[F], F]:
    """Return tenacity's decorator that makes three attempts."""
    retry: Any = tenacity.retry(stop=tenacity.stop_after_attempt(3), **more)
    decorator: Callable[[F], F] = retry
    return decorator


@each_loop
def test_a_hedge_inside_a_retry_races_in_each_attempt(run: Run) -> None:
    hedged = Pipeline(Retry(2, wait=AT_ONCE), Hedge(1.0), budget=None).bind(idempotent=True)
    begun: list[float] = []

    async def work() -> None:
        begun.append(anyio.current_time())
        await anyio.sleep(1.5)
        raise ConnectionError

    async def main() -> list[float]:
        start = anyio.current_time()
        with pytest.raises(ConnectionError):
            await hedged.acall(work)
        return [round(at - start, 2) for at in begun]

    with Recorder(events=[HedgeStarted, RetryScheduled]) as recorder:
        # The hedge of each attempt starts a second after it; the attempt has failed when both have.
        assert run(main) == [0.0, 1.0, 2.5, 3.5]
    assert len(recorder.of(HedgeStarted)) == 2
    assert len(recorder.of(RetryScheduled)) == 1


@each_way
def test_a_retry_inside_a_timeout_inside_a_fallback(make: Make, virtual_clock: VirtualClock) -> None:
    start = virtual_clock.monotonic()
    pipeline = Pipeline(Fallback(value="none"), Timeout(2.5), Retry(9, wait=backoff.fixed(1.0)), budget=None)
    failing = Failing()

    assert make(pipeline, failing) == "none"
    assert failing.calls == 3  # a further wait would end after the deadline
    assert virtual_clock.monotonic() - start == pytest.approx(2.0)


@each_way
def test_a_breaker_for_each_target_inside_a_retry(make: Make) -> None:
    pipeline: Any = Pipeline(Retry(3, wait=AT_ONCE), Partition(lambda: CircuitBreaker(1.0, 3)), budget=None)
    failing = Failing()

    with pytest.raises(ConnectionError):
        make(pipeline.bind(target="dead"), failing)
    with pytest.raises(CircuitOpenError):
        make(pipeline.bind(target="dead"), failing)
    assert failing.calls == 3
    assert make(pipeline.bind(target="alive"), lambda: "fine") == "fine"


@each_loop
@pytest.mark.parametrize("outside", [True, False])
def test_a_bulkhead_holds_its_permit_during_waits_only_outside_of_the_retry(run: Run, outside: bool) -> None:
    bulkhead, retry = Bulkhead(1), Retry(2, wait=backoff.fixed(5.0))
    pipeline = Pipeline(*((bulkhead, retry) if outside else (retry, bulkhead)), budget=None)
    failing = Failing(1)

    async def second() -> str:
        await anyio.sleep(1.0)
        try:
            return str(await pipeline.acall(str, "second"))
        except BulkheadFullError:
            return "full"

    async def main() -> list[str]:
        found: list[str] = []

        async def first() -> None:
            found.append(await pipeline.acall(failing))

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            found.append(await second())
        return found

    assert run(main) == ["full" if outside else "second", "fine"]
    assert bulkhead.in_flight == 0


@each_way
def test_one_breaker_in_three_pipelines(make: Make) -> None:
    breaker = CircuitBreaker(name="host")
    pipelines = [
        Pipeline(Retry(2, wait=AT_ONCE), breaker, budget=None),
        Pipeline(Timeout(5.0), breaker),
        Pipeline(Fallback(value="none"), Pipeline(breaker)),
    ]
    failing = Failing()
    for pipeline in pipelines * 2:
        with suppress(ConnectionError, CircuitOpenError):
            assert make(pipeline, failing) == "none"

    assert failing.calls == 5  # 2 and 1 and 1, and one more, which opens it
    assert breaker.snapshot()["opens"] == 1
    assert make(pipelines[2], failing) == "none"
    with pytest.raises(CircuitOpenError) as caught:
        make(pipelines[1], failing)
    assert (failing.calls, caught.value.policy) == (5, "host")


@each_way
def test_three_retries_of_pipelines_in_pipelines_make_three_calls(make: Make) -> None:
    def layer(inside: Any) -> Any:
        with pytest.warns(ResilienceWarning, match="give"):
            return Pipeline(Retry(3, wait=AT_ONCE), inside, budget=None)

    inner = Pipeline(Retry(3, wait=AT_ONCE), budget=None)
    failing = Failing()
    with pytest.raises(ConnectionError):
        make(layer(layer(inner)), failing)

    assert failing.calls == 3


@pytest.mark.parametrize("reraise", [True, False])
def test_tenacity_outside_multiplies_since_nothing_can_see_it(reraise: bool) -> None:
    failing = Failing()

    @three_times(reraise=reraise)
    def call() -> None:
        Pipeline(Retry(3, wait=AT_ONCE), budget=None).call(failing)

    with pytest.raises(ConnectionError if reraise else tenacity.RetryError):
        call()
    assert failing.calls == 9


def test_tenacity_inside_multiplies_and_warns_at_the_line_that_decorates() -> None:
    failing = Failing()

    @three_times(reraise=True)
    def fetch() -> None:
        failing()

    with pytest.warns(ResilienceWarning, match=r"tenacity retries .*fetch, too, .* remove one of the two") as caught:
        guarded = Pipeline(Retry(3, wait=AT_ONCE), budget=None, name="nine")(fetch)
    assert caught[0].filename == __file__
    with pytest.raises(ConnectionError):
        guarded()
    assert failing.calls == 9


def test_tenacity_inside_a_coroutine_function_warns_and_without_a_retry_does_not() -> None:
    @three_times(reraise=True)
    async def fetch() -> str:
        return "fine"

    with pytest.warns(ResilienceWarning, match="multiply"):
        Pipeline(Retry(3), name="awaited nine")(fetch)
    assert asyncio.run(Pipeline(CircuitBreaker(), name="no retry")(fetch)()) == "fine"


def test_a_retry_error_of_tenacity_is_not_repeated() -> None:
    failing = Failing()

    @three_times()
    def fetch() -> None:
        failing()

    with pytest.raises(tenacity.RetryError):
        Pipeline(Retry(3, wait=AT_ONCE), budget=None).call(fetch)
    assert failing.calls == 3


@pytest.mark.parametrize("reraise", [True, False])
def test_a_mark_is_seen_through_tenacity(reraise: bool) -> None:
    failing = Failing()
    inner = Pipeline(Retry(3, wait=AT_ONCE), budget=None)

    @three_times(reraise=reraise)
    def fetch() -> None:
        inner.call(failing)

    outer = Pipeline(Retry(3, wait=AT_ONCE, on=(ConnectionError, tenacity.RetryError)), budget=None)
    with pytest.raises((ConnectionError, tenacity.RetryError)):
        outer.call(fetch)
    assert failing.calls == 9  # not 27
