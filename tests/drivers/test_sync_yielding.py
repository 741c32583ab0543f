"""Between two attempts the other tasks run, and a cancellation is no failure, whatever the function makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import tenacity

from resilience import (
    Bulkhead,
    CircuitBreaker,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
)
from resilience.events import RetryScheduled
from resilience.testing import Recorder, virtual_time
from tests.support.loops import Run, each_loop

NOW = backoff.none()


def endless(**more: Any) -> Pipeline[Any]:
    """Return a pipeline that retries without a wait, and without an end of its own for a thousand attempts."""
    return Pipeline(Retry(1000, wait=NOW, budget=None, **more), budget=None)


async def down() -> None:
    raise ConnectionError("down")


class TestWithoutAWait:
    @each_loop
    def test_other_tasks_run_between_two_attempts(self, run: Run) -> None:
        turns: list[str] = []

        async def attempt() -> None:
            turns.append("attempt")
            await down()

        async def other() -> None:
            for _ in range(5):
                turns.append("other")
                await anyio.lowlevel.checkpoint()

        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(other)
                with pytest.raises(ConnectionError):
                    await Pipeline(Retry(20, wait=NOW), budget=None).acall(attempt)

        run(main)

        assert "other" in turns[: turns.index("attempt") + 12]
        assert turns.count("other") == 5

    def test_wait_for_ends_them(self) -> None:
        attempts: list[int] = []

        async def attempt() -> None:
            attempts.append(1)
            clock.advance(0.01)
            await down()

        async def main() -> None:
            await asyncio.wait_for(endless().acall(attempt), 0.3)

        with virtual_time() as clock, pytest.raises(TimeoutError):
            asyncio.run(main())

        assert 20 <= len(attempts) <= 40

    @each_loop
    def test_a_scope_ends_them(self, run: Run) -> None:
        attempts: list[int] = []

        async def main() -> None:
            async def attempt() -> None:
                attempts.append(1)
                if len(attempts) == 10:
                    scope.cancel()
                await down()

            with anyio.CancelScope() as scope:
                await endless().acall(attempt)
            assert scope.cancelled_caught

        run(main)

        assert 10 <= len(attempts) <= 12

    @each_loop
    def test_a_drain_ends_them(self, run: Run) -> None:
        pipeline = endless()
        attempts: list[int] = []

        async def attempt() -> None:
            attempts.append(1)
            await down()

        async def call() -> None:
            with pytest.raises(ConnectionError) as caught:
                await pipeline.acall(attempt)
            assert "draining" in caught.value.__notes__[0]

        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                while len(attempts) < 10:
                    await anyio.lowlevel.checkpoint()
                assert await pipeline.adrain(1)

        run(main)

        assert len(attempts) < 50

    def test_stop_after_a_delay_does_not_keep_the_loop(self) -> None:
        pipeline = Pipeline(Retry(stop=tenacity.stop_after_delay(2.0), wait=NOW, budget=None))
        seen: list[str] = []

        async def attempt() -> None:
            clock.advance(0.01)
            await down()

        async def main() -> None:
            task = asyncio.create_task(pipeline.acall(attempt))
            await asyncio.sleep(0.05)
            seen.append("running" if not task.done() else "done")
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()

        with virtual_time() as clock:
            asyncio.run(main())

        assert seen == ["running"]


class Unhappy(ConnectionError):
    """What a client library makes of a cancellation."""


async def converts() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise Unhappy from None


async def notes_and_raises() -> None:
    cancelled = False
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled = True
    if cancelled:
        raise Unhappy


def no_more() -> list[Any]:
    return []


def with_a_timeout() -> list[Any]:
    return [Timeout(600)]


def with_all() -> list[Any]:
    return [Bulkhead(1), Timeout(600, share=0.5), CircuitBreaker()]


Inside = Callable[[], list[Any]]


@pytest.mark.parametrize("function", [converts, notes_and_raises])
@pytest.mark.parametrize("inside", [no_more, with_a_timeout, with_all])
class TestACancellationThatTheFunctionTurnsIntoAnError:
    def test_it_is_not_retried(self, function: Callable[[], Awaitable[None]], inside: Inside) -> None:
        attempts: list[int] = []
        pipeline = Pipeline(Retry(5, wait=NOW), *inside())

        async def attempt() -> None:
            attempts.append(1)
            await function()

        async def main() -> None:
            task = asyncio.create_task(pipeline.acall(attempt))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(Unhappy):
                await task

        with virtual_time(), Recorder(pipeline) as recorder:
            asyncio.run(main())

        assert len(attempts) == 1
        assert recorder.of(RetryScheduled) == []

    def test_a_timeout_around_it_ends_in_time(self, function: Callable[[], Awaitable[None]], inside: Inside) -> None:
        pipeline = Pipeline(Retry(5, wait=backoff.fixed(1)), *inside())

        async def main() -> None:
            begin = asyncio.get_running_loop().time()
            with suppress(TimeoutError, Unhappy):
                async with asyncio.timeout(0.3):
                    await pipeline.acall(function)
            assert asyncio.get_running_loop().time() - begin < 0.5

        with virtual_time():
            asyncio.run(main())

    def test_a_task_that_was_cancelled_before_may_retry(
        self, function: Callable[[], Awaitable[None]], inside: Inside
    ) -> None:
        """Such as in the clean-up of a task: only a cancellation since the call began counts."""
        attempts: list[int] = []
        pipeline = Pipeline(Retry(3, wait=NOW), *inside())

        async def clean_up() -> None:
            attempts.append(1)
            raise Unhappy

        async def work() -> None:
            with suppress(Unhappy):
                await function()
            with pytest.raises(Unhappy):
                await pipeline.acall(clean_up)

        async def main() -> None:
            task = asyncio.create_task(work())
            await asyncio.sleep(1)
            task.cancel()
            await task

        with virtual_time():
            asyncio.run(main())

        assert len(attempts) == 3


def test_our_own_cut_that_the_function_turns_into_an_error_is_retried() -> None:
    attempts: list[int] = []

    async def attempt() -> None:
        attempts.append(1)
        await converts()

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await Pipeline(Retry(3, wait=NOW), Timeout(1)).acall(attempt)

    with virtual_time():
        asyncio.run(main())

    assert len(attempts) == 3


def test_a_rejection_after_a_retry_without_a_wait_stays_one() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await Pipeline(Retry(3, wait=NOW), breaker).acall(down)
        with pytest.raises(RejectedError):
            await Pipeline(Retry(3, wait=NOW), breaker).acall(down)

    asyncio.run(main())
