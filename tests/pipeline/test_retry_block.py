"""A Retry around a block of code, with its whole behaviour, plainly and in tasks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Bulkhead,
    DeadlineExceededError,
    Failure,
    Pipeline,
    RejectedError,
    Retry,
    RetryBudget,
    UsageError,
    backoff,
    deadline_after,
    remaining,
)
from resilience._pipeline.retry_block import RetryBlock
from resilience.events import GiveUpReason, RetryGivenUp, RetryScheduled, subscribe
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import AppError, Failing
from tests.support.loops import on_asyncio, on_trio

NOW = backoff.none()
Way = Callable[[Any, Callable[[], Any]], Any]


def plainly(retry: Any, function: Callable[[], Any]) -> Any:
    for attempt in retry:
        with attempt:
            return function()
    raise AssertionError("the loop ended without a result")


async def _in_task(retry: Any, function: Callable[[], Any], how: str) -> Any:
    async for attempt in retry:
        if how == "with":
            with attempt:
                return function()
        else:
            async with attempt:
                await anyio.lowlevel.checkpoint()
                return function()
    raise AssertionError("the loop ended without a result")


def on_asyncio_with(retry: Any, function: Callable[[], Any]) -> Any:
    return on_asyncio(lambda: _in_task(retry, function, "with"))


def on_asyncio_async_with(retry: Any, function: Callable[[], Any]) -> Any:
    return on_asyncio(lambda: _in_task(retry, function, "async with"))


def on_trio_async_with(retry: Any, function: Callable[[], Any]) -> Any:
    return on_trio(lambda: _in_task(retry, function, "async with"))


each_way = pytest.mark.parametrize("way", [plainly, on_asyncio_with, on_asyncio_async_with, on_trio_async_with])


@each_way
def test_a_block_that_fails_is_repeated(way: Way) -> None:
    dependency = Failing(2)

    assert way(Retry(3, wait=NOW), dependency) == "fine"
    assert dependency.calls == 3


@each_way
def test_the_last_failure_is_raised_as_it_is_with_a_note(way: Way) -> None:
    dependency = Failing()

    with pytest.raises(ConnectionError, match="down") as caught:
        way(Retry(3, wait=NOW), dependency)

    assert dependency.calls == 3
    assert "gave up after 3 attempts" in caught.value.__notes__[0]


@each_way
def test_other_exceptions_pass(way: Way) -> None:
    dependency = Failing(error=AppError)

    with pytest.raises(AppError):
        way(Retry(3, wait=NOW), dependency)

    assert dependency.calls == 1


def test_the_attempts_are_numbered_and_code_after_the_block_runs_once() -> None:
    dependency = Failing(2)
    numbers: list[int] = []
    after = 0

    for attempt in Retry(3, wait=NOW):
        with attempt:
            numbers.append(attempt.number)
            dependency()
    after += 1

    assert (numbers, after) == ([1, 2, 3], 1)


def test_the_waits_are_slept_and_hints_are_kept(virtual_clock: VirtualClock) -> None:
    dependency = Failing(2)

    plainly(Retry(3, wait=backoff.fixed(2.0)), dependency)

    assert virtual_clock.sleeps == [2.0, 2.0]


def test_the_budget_is_paid_from_and_into(virtual_clock: VirtualClock) -> None:
    budget = RetryBudget(ratio=0.5, capacity=5, initial=2)

    plainly(Retry(3, wait=NOW, budget=budget), Failing(1))
    assert budget.tokens == 1.5

    with pytest.raises(ConnectionError):
        plainly(Retry(9, wait=NOW, budget=budget), Failing())
    assert budget.tokens == 0.5


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    dependency = Failing()

    with virtual_time() as clock, deadline_after(1.0), pytest.raises(ConnectionError) as caught:
        plainly(Retry(3, wait=backoff.fixed(2.0)), dependency)

    assert (dependency.calls, clock.elapsed) == (1, 0)
    assert "deadline" in caught.value.__notes__[0]


def test_a_deadline_that_has_passed_before_is_said_so() -> None:
    with deadline_after(0.0), pytest.raises(DeadlineExceededError) as caught:
        plainly(Retry(3), Failing(0))

    assert caught.value.unprocessed


@each_way
def test_retries_at_several_levels_do_not_multiply(way: Way) -> None:
    dependency = Failing()
    inner = Pipeline(Retry(3, wait=NOW))

    with pytest.raises(ConnectionError):
        way(Retry(3, wait=NOW), lambda: inner.call(dependency))

    assert dependency.calls == 3


def test_nor_where_the_inner_one_is_the_block() -> None:
    dependency = Failing()
    outer = Pipeline(Retry(3, wait=NOW))

    with pytest.raises(ConnectionError):
        outer.call(plainly, Retry(3, wait=NOW), dependency)

    assert dependency.calls == 3


def test_a_pipeline_of_a_retry_alone_works_too_with_its_failures() -> None:
    dependency = Failing(2, error=AppError)
    pipeline = Pipeline(Retry(3, wait=NOW), failures=AppError, name="only a retry")

    with subscribe(lambda event: events.append(event), events=(RetryScheduled, RetryGivenUp)):
        events: list[Any] = []
        assert plainly(pipeline, dependency) == "fine"

    assert [one.pipeline for one in events] == ["only a retry"] * 2


@pytest.mark.parametrize("policies", [[Retry(3), Bulkhead(1)], [Bulkhead(1)], []])
def test_one_with_other_policies_needs_a_function_and_says_so(policies: list[Any]) -> None:
    async def main() -> None:
        async for _ in Pipeline(*policies):
            pytest.fail("there is no attempt")

    with pytest.raises(UsageError, match="put the block into a function"):
        iter(Pipeline(*policies))
    with pytest.raises(UsageError, match="put the block into a function"):
        asyncio.run(main())


def test_a_loop_without_the_block_is_an_error() -> None:
    retry = Retry(3)

    with pytest.raises(UsageError, match="must be `with attempt:`"):
        for _ in retry:
            pass


def test_an_attempt_is_made_once() -> None:
    for attempt in Retry(3):
        with attempt:
            pass
        with pytest.raises(UsageError, match="made before"), attempt:
            pass


def test_cancellation_is_not_retried_also_if_it_becomes_another_exception() -> None:
    calls = 0

    async def main() -> None:
        nonlocal calls
        async for attempt in Retry(3, wait=NOW):
            async with attempt:
                calls += 1
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise ConnectionError from None

    async def cancelled() -> None:
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ConnectionError):
            await task

    asyncio.run(cancelled())

    assert calls == 1


def test_an_async_predicate_needs_async_with() -> None:
    async def listed(error: Exception) -> bool:
        return isinstance(error, ConnectionError)

    dependency = Failing(1)
    assert on_asyncio_async_with(Retry(3, wait=NOW, on=listed), dependency) == "fine"
    with pytest.raises(UsageError):
        on_asyncio_with(Retry(3, wait=NOW, on=listed), Failing(1))


@each_way
def test_in_shadow_mode_the_failure_passes_and_the_retry_is_reported(way: Way) -> None:
    events: list[Any] = []
    dependency = Failing()

    with subscribe(events.append, events=(RetryScheduled,)), pytest.raises(ConnectionError):
        way(Retry(3, wait=NOW, mode="shadow"), dependency)

    assert (dependency.calls, [str(one.mode) for one in events]) == (1, ["shadow"])


@each_way
def test_in_off_mode_nothing_happens(way: Way) -> None:
    dependency = Failing()

    with pytest.raises(ConnectionError):
        way(Retry(3, wait=NOW, mode="off"), dependency)

    assert dependency.calls == 1


def test_a_block_is_in_flight_until_it_ends_and_a_drain_refuses_new_ones() -> None:
    pipeline = Pipeline(Retry(3, wait=NOW))

    for attempt in pipeline:
        with attempt:
            assert pipeline.snapshot()["in_flight"] == 1
    assert pipeline.snapshot()["in_flight"] == 0

    assert pipeline.drain(1.0)
    with pytest.raises(RejectedError, match="drained"):
        plainly(pipeline, Failing(0))


def test_a_loop_that_is_left_before_its_block_leaves_nothing_in_flight() -> None:
    pipeline = Pipeline(Retry(3, wait=NOW))

    def leave() -> None:
        for _ in pipeline:
            break

    leave()
    gc.collect()

    assert pipeline.snapshot()["in_flight"] == 0


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_block_that_is_left_between_two_attempts_is_not_in_flight(interrupted: bool) -> None:
    pipeline = Pipeline(Retry(3, wait=NOW))

    def leave() -> None:
        for attempt in pipeline:
            with attempt:
                raise ConnectionError
            if interrupted:
                raise KeyboardInterrupt
            break

    with contextlib.suppress(KeyboardInterrupt):
        leave()
    gc.collect()

    assert pipeline.snapshot()["in_flight"] == 0


def test_a_task_that_is_cancelled_between_two_attempts_leaves_nothing_in_flight() -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(60)))

    async def block() -> None:
        async for attempt in pipeline:
            async with attempt:
                raise ConnectionError

    async def main() -> None:
        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        assert pipeline.snapshot()["in_flight"] == 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gc.collect()

    assert pipeline.snapshot()["in_flight"] == 0


def test_a_task_that_is_cancelled_between_two_attempts_counts_its_block_out_at_once() -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(60)))

    async def block() -> None:
        async for attempt in pipeline:
            async with attempt:
                raise ConnectionError

    async def main() -> None:
        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert pipeline.snapshot()["in_flight"] == 0, caught.value

    asyncio.run(main())


def test_a_block_that_has_ended_is_freed_at_once() -> None:
    gc.disable()
    try:
        pipeline = Pipeline(Retry(3, wait=NOW))
        plainly(pipeline, Failing(0))
        before = sum(isinstance(one, RetryBlock) for one in gc.get_objects())
        for _ in range(10):
            plainly(pipeline, Failing(0))
        assert sum(isinstance(one, RetryBlock) for one in gc.get_objects()) == before
    finally:
        gc.enable()


def test_a_loop_that_has_ended_stays_so() -> None:
    block = iter(Retry(3, wait=NOW))
    for attempt in block:
        with attempt:
            pass

    assert list(block) == []


@each_way
@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_the_mode_of_the_pipeline_holds(way: Way, mode: Any) -> None:
    dependency = Failing()

    with pytest.raises(ConnectionError):
        way(Pipeline(Retry(3, wait=NOW), mode=mode), dependency)

    assert dependency.calls == 1


def test_an_async_predicate_that_fails_leaves_the_failure_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(error: Exception) -> bool:
        raise KeyError(error)

    pipeline = Pipeline(Retry(3, wait=NOW, on=broken))

    with pytest.raises(ConnectionError):
        on_asyncio_async_with(pipeline, Failing(3))

    assert pipeline.snapshot()["in_flight"] == 0
    assert "KeyError" in caplog.text


def test_a_block_that_is_cancelled_in_its_predicate_is_not_in_flight() -> None:
    async def slow(error: Exception) -> bool:
        del error
        await asyncio.Event().wait()
        return True

    pipeline = Pipeline(Retry(3, wait=NOW, on=slow))

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await _in_task(pipeline, Failing(3), "async with")

    asyncio.run(main())

    assert pipeline.snapshot()["in_flight"] == 0


def test_a_block_in_a_generator_is_inside_of_the_attempts_around_its_resumption() -> None:
    """The generator begins outside of a Retry, and its attempts are made inside of one."""
    calls = 0

    def attempts() -> Generator[None]:
        for attempt in Retry(3, wait=NOW, budget=None):
            with attempt:
                yield
                raise ConnectionError

    @Pipeline(Retry(3, wait=NOW, budget=None), name="around")
    def outer() -> None:
        nonlocal calls
        calls += 1
        for _ in begun:
            pass

    begun = attempts()
    next(begun)
    with pytest.raises(ConnectionError):
        outer()

    assert calls == 1


def test_the_reason_is_published() -> None:
    events: list[Any] = []
    refused = Failure(retryable=False)

    with subscribe(events.append, events=(RetryGivenUp,)), pytest.raises(ConnectionError):
        plainly(Pipeline(Retry(3), failures=lambda error: refused), Failing())

    assert [one.reason for one in events] == [GiveUpReason.NOT_RETRYABLE]


def test_the_deadline_around_it_is_seen_inside() -> None:
    seen: list[float | None] = []

    with deadline_after(100.0):
        for attempt in Retry(3):
            with attempt:
                seen.append(remaining())

    assert seen[0] is not None
    assert seen[0] > 90
