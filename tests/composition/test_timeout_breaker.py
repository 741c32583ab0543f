"""Timeout and CircuitBreaker in one pipeline, or in one within another: which cuts and late values count."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import (
    CircuitBreaker,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
    deadline_after,
)
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import hang
from tests.support.loops import Run, each_loop

NOW = backoff.none()


async def healthy() -> str:
    await anyio.sleep(0.02)
    return "fine"


@each_loop
def test_callers_in_a_hurry_never_open_the_breaker(run: Run) -> None:
    breaker = CircuitBreaker(consecutive_failures=6, min_calls=3)
    pipeline = Pipeline(breaker, Timeout(1))

    async def main() -> None:
        for _ in range(20):
            with deadline_after(0.005), pytest.raises(DeadlineExceededError):
                await pipeline.acall(healthy)
        assert await pipeline.acall(healthy) == "fine"

    run(main)

    assert breaker.state == "closed"
    assert breaker.snapshot()["failures"] == 0


@each_loop
@pytest.mark.parametrize("inside", [True, False])
def test_hangs_cut_by_our_own_timeout_open_it(run: Run, inside: bool) -> None:
    breaker = CircuitBreaker(consecutive_failures=6)
    pipeline = Pipeline(breaker, Timeout(1)) if inside else Pipeline(Timeout(1), breaker)

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(DeadlineExceededError):
                await pipeline.acall(hang)
        with pytest.raises(RejectedError):
            await pipeline.acall(hang)

    run(main)

    assert breaker.state == "open"


def test_a_deadline_that_expired_before_the_call_is_not_scored(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    with deadline_after(0), pytest.raises(DeadlineExceededError):
        Pipeline(breaker).call(print)

    assert (breaker.state, breaker.snapshot()["calls"]) == ("closed", 0)


def test_late_values_open_it_and_are_returned(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=4)
    pipeline = Pipeline(breaker, Timeout(1))

    def late() -> str:
        virtual_clock.advance(1)
        return "late"

    assert [pipeline.call(late) for _ in range(2)] == ["late", "late"]
    assert breaker.state == "open"


def test_plain_callers_in_a_hurry_never_open_the_breaker(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=6)
    pipeline = Pipeline(breaker, Timeout(2.0))

    def healthy() -> str:
        virtual_clock.advance(0.02)
        return "fine"

    for _ in range(11):
        with deadline_after(0.005):
            assert pipeline.call(healthy) == "fine"

    assert (breaker.state, breaker.snapshot()["failures"]) == ("closed", 0)


def test_a_late_value_of_a_patient_caller_counts(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    with deadline_after(1.5):
        Pipeline(breaker, Timeout(2.0)).call(virtual_clock.advance, 1.5)

    assert breaker.state == "open"


def test_an_expired_deadline_in_a_task_group_is_not_retried() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    pipeline = Pipeline(Retry(3, wait=NOW), breaker)
    inner = Pipeline(Retry(1))
    calls: list[int] = []

    async def family() -> None:
        calls.append(1)
        async with asyncio.TaskGroup() as group:

            async def child() -> None:
                with deadline_after(0):
                    await inner.acall(print)

            group.create_task(child())

    with pytest.raises(ExceptionGroup):
        asyncio.run(pipeline.acall(family))

    assert (calls, breaker.state) == ([1], "closed")


def alone(call: Any) -> Any:
    return call()


async def gathered(call: Any) -> None:
    await asyncio.gather(call(), call())


async def grouped(call: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        group.create_task(call())


@pytest.mark.parametrize("around", [alone, gathered, grouped])
def test_a_hang_that_an_outer_pipeline_cuts_counts_for_the_breaker_further_in(around: Any) -> None:
    breaker = CircuitBreaker(consecutive_failures=None)
    inner = Pipeline(breaker, Timeout(0.3))
    outer = Pipeline(Timeout(0.2))

    async def handler() -> None:
        await around(lambda: inner.acall(hang))

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(DeadlineExceededError):
                await outer.acall(handler)
        task = asyncio.current_task()
        assert task is not None
        if around is not grouped:  # a TaskGroup of Python 3.11 leaves one behind
            assert task.cancelling() == 0

    with virtual_time() as clock:
        asyncio.run(main())

    assert breaker.snapshot()["failures"] == (2 if around is alone else 4)
    assert clock.elapsed <= 0.41


@pytest.mark.parametrize("together", [False, True])
def test_the_same_under_trio(together: bool) -> None:
    breaker = CircuitBreaker(consecutive_failures=None)
    inner = Pipeline(breaker, Timeout(0.3))
    outer = Pipeline(Timeout(0.2))

    async def handler() -> None:
        if not together:
            await inner.acall(trio.sleep_forever)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner.acall, trio.sleep_forever)
            nursery.start_soon(inner.acall, trio.sleep_forever)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await outer.acall(handler)
        await trio.lowlevel.checkpoint()

    with virtual_time() as clock:
        trio.run(main, clock=clock.trio())

    assert breaker.snapshot()["failures"] == (2 if together else 1)
