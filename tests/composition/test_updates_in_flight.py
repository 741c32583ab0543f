"""An `update` of a policy while calls are in flight: they end under the rules that they began with."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest
import tenacity

from resilience import (
    AdaptiveLimit,
    Bulkhead,
    Chaos,
    Cooldown,
    Fallback,
    Hedge,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    RetryBudget,
    StaleCache,
    Timeout,
    backoff,
)
from resilience.events import RetryGivenUp, RetryScheduled
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.functions import Failing, down
from tests.support.overload import Overloaded, busy, overloaded

pytestmark = pytest.mark.filterwarnings("ignore::resilience.ResilienceWarning")


class Change(NamedTuple):
    """A policy, an update of it under a call, and how that call and the next one end, after how many seconds."""

    make: Callable[[], Policy[Any]]
    settings: dict[str, Any]
    first: tuple[str, float]
    second: tuple[str, float]
    calls: Callable[[], Callable[[], Any]] = lambda: partial(anyio.sleep, 3)
    holder: float | None = None


def answers_in(seconds: float) -> Callable[[], Any]:
    """Return a function that fails after so many seconds, and then again and again."""

    async def work() -> None:
        await anyio.sleep(seconds)
        raise ConnectionError

    return work


def slow_then_fast() -> Callable[[], Any]:
    """Return a function whose first attempts take long, and whose fourth is fast."""
    numbers = itertools.count(1)

    async def work() -> None:
        await anyio.sleep(9 if next(numbers) % 4 else 0.25)

    return work


IN_FLIGHT = {
    "timeout": Change(lambda: Timeout(5), {"seconds": 1}, ("None", 3.0), ("DeadlineExceededError", 1.0)),
    "timeout of attempts": Change(
        lambda: Pipeline(Retry(2, wait=backoff.none()), Timeout(5, name="attempt")),
        {"seconds": 1},
        ("ConnectionError", 6.0),
        ("DeadlineExceededError", 2.0),
        lambda: answers_in(3),
    ),
    "retry": Change(
        lambda: Retry(3, wait=backoff.fixed(1)),
        {"attempts": 1},
        ("ConnectionError", 8.0),
        ("ConnectionError", 2.0),
        lambda: answers_in(2),
    ),
    "wait of a retry": Change(
        lambda: Retry(3, wait=backoff.fixed(1)),
        {"wait": tenacity.wait_fixed(5)},
        ("ConnectionError", 8.0),
        ("ConnectionError", 16.0),
        lambda: answers_in(2),
    ),
    "bulkhead": Change(
        lambda: Bulkhead(1, queue=5, max_wait=9),
        {"max_wait": 1, "queue": 1},
        ("None", 7.0),
        ("BulkheadFullError", 1.0),
        holder=4.0,
    ),
    "adaptive limit": Change(
        lambda: AdaptiveLimit(1, max_limit=1, queue=5, max_wait=9),
        {"max_wait": 1, "queue": 1},
        ("None", 7.0),
        ("BulkheadFullError", 1.0),
        holder=4.0,
    ),
    "rate limit": Change(
        lambda: RateLimit(1, per=4, max_wait=9), {"max_wait": 1}, ("None", 7.0), ("RateLimitedError", 0.0), holder=0.0
    ),
    "cooldown": Change(
        lambda: Cooldown(spread=0.0), {"max_wait": 1}, ("None", 8.0), ("RateLimitedError", 0.0), holder=-1.0
    ),
    "timeout with a share, of attempts": Change(
        lambda: Pipeline(
            Timeout(8, name="call"), Retry(3, wait=backoff.none()), Timeout(None, share=0.5, name="attempt")
        ),
        {"share": 0.25},
        ("DeadlineExceededError", 7.0),
        ("DeadlineExceededError", 4.62),
        lambda: partial(anyio.sleep, 60),
    ),
    "hedge of attempts": Change(
        lambda: Pipeline(
            Retry(2, wait=backoff.none()), Hedge(2.0, max_hedges=1, budget=None, name="attempt"), budget=None
        ),
        {"after": 0.5},
        ("ConnectionError", 10.0),
        ("ConnectionError", 7.0),
        lambda: answers_in(3),
    ),
    "fallback": Change(
        lambda: Fallback(value=1), {"value": 2, "on": None}, ("1", 3.0), ("2", 3.0), lambda: answers_in(3)
    ),
    "fallback by an allowlist": Change(
        lambda: Fallback(value=1, on=ConnectionError),
        {"on": KeyError},
        ("1", 3.0),
        ("ConnectionError", 3.0),
        lambda: answers_in(3),
    ),
    "hedge": Change(
        lambda: Hedge(2.0, max_hedges=1, budget=None),
        {"after": 0.5, "max_hedges": 3},
        ("None", 9.0),
        ("None", 1.75),
        slow_then_fast,
    ),
    "chaos": Change(
        lambda: Chaos(1.0, latency=5.0, enabled=True), {"latency": 2.0, "result": 7}, ("None", 8.0), ("7", 2.0)
    ),
}


@pytest.mark.parametrize("change", IN_FLIGHT.values(), ids=IN_FLIGHT)
def test_a_call_in_flight_ends_under_the_rules_that_it_began_with(change: Change) -> None:
    policy = change.make()
    pipeline: Pipeline[Any] = Pipeline(policy, failures=busy, budget=None)
    changed: Any = policy["attempt"] if isinstance(policy, Pipeline) else policy
    ended: list[tuple[str, float]] = []
    work = change.calls()

    async def call(function: Callable[[], Any]) -> None:
        began = anyio.current_time()
        try:
            outcome = str(await pipeline.bind(idempotent=True).acall(function))
        except Exception as error:
            outcome = type(error).__name__
        ended.append((outcome, round(anyio.current_time() - began, 2)))

    async def hold() -> None:
        if change.holder is not None:
            work = overloaded if change.holder < 0 else partial(anyio.sleep, change.holder)
            with suppress(Overloaded):
                await pipeline.acall(work)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(hold)
            await anyio.lowlevel.checkpoint()
            group.start_soon(call, work)
            await anyio.sleep(1)
            changed.update(**change.settings)
        async with anyio.create_task_group() as group:
            group.start_soon(hold)
            await anyio.lowlevel.checkpoint()
            await call(change.calls())

    with virtual_time():
        asyncio.run(main())

    assert ended == [change.first, change.second]


def test_plain_calls_and_blocks_are_retried_by_the_rules_that_they_began_with(virtual_clock: VirtualClock) -> None:
    retry = Retry(3, wait=backoff.fixed(1), budget=None)
    pipeline = Pipeline(retry)
    attempts: list[int] = []

    def work() -> None:
        attempts.append(1)
        retry.update(attempts=1, on=KeyError)
        raise ConnectionError

    def plainly() -> None:
        pipeline.call(work)

    for run in (plainly, partial(in_a_block, retry, work)):
        retry.update(attempts=3, on=None)
        attempts.clear()
        with Recorder(events=[RetryScheduled, RetryGivenUp]) as recorder, pytest.raises(ConnectionError):
            run()
        assert len(attempts) == 3
        assert [event.max_attempts for event in recorder.of(RetryScheduled)] == [3, 3]
        assert [event.reason for event in recorder.of(RetryGivenUp)] == ["attempts"]
    attempts.clear()
    with pytest.raises(ConnectionError):
        pipeline.call(work)
    assert len(attempts) == 1


def in_a_block(retry: Retry, work: Callable[[], None]) -> None:
    """Call a function in a block that is retried."""
    for attempt in retry:
        with attempt:
            work()


def test_a_call_pays_and_is_paid_by_the_budget_that_it_began_with(virtual_clock: VirtualClock) -> None:
    old, new = RetryBudget(1.0, 10, initial=5), RetryBudget(1.0, 10, initial=5)
    retry = Retry(3, wait=backoff.none(), budget=old)
    failing = Failing(1)

    def work() -> str:
        retry.update(budget=new)
        return failing()

    assert Pipeline(retry).call(work) == "fine"
    assert (old.tokens, new.tokens) == (5, 5)
    assert old.withdraw()
    assert (old.tokens, new.tokens) == (4, 5)


def test_a_stale_cache_answers_by_the_rules_that_the_call_began_with(virtual_clock: VirtualClock) -> None:
    cache = StaleCache(lambda call: "one", max_age=10.0)
    pipeline = Pipeline(cache)

    def work() -> str:
        virtual_clock.advance(5.0)
        cache.update(max_age=1.0)
        raise ConnectionError

    pipeline.call(lambda: "fine")
    assert pipeline.call(work) == "fine"
    with pytest.raises(ConnectionError):
        pipeline.call(down)
