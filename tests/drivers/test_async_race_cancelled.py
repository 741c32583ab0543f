"""Attempts that race in tasks, where the call is cancelled or dropped, or the server asks to come back later."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import pytest

from resilience import HTTP_FAILURES, Hedge, Pipeline, RetryBudget, Timeout, remaining
from resilience._util.clock import clock
from tests.support.loops import Run, each_loop, on_asyncio


class SlowToCleanUp:
    """Never answers, and takes a second to clean up when it is cancelled."""

    def __init__(self) -> None:
        self.calls = 0
        self.running = 0

    async def __call__(self) -> None:
        self.calls += 1
        self.running += 1
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            self.running -= 1


class Busy:
    """A response that asks to come back later."""

    status_code = 503

    def __init__(self, seconds: float) -> None:
        self.headers = {"Retry-After": str(seconds)}


@each_loop
def test_no_attempt_is_started_while_a_cancelled_one_cleans_up(run: Run) -> None:
    dependency = SlowToCleanUp()
    guarded = Pipeline(Hedge(0.1, max_hedges=3, budget=None)).bind(idempotent=True)(dependency)

    async def main() -> None:
        with anyio.move_on_after(0.15):
            await guarded()
        await anyio.sleep(5)

    run(main)

    assert (dependency.calls, dependency.running) == (2, 0)


def test_no_attempt_is_started_while_a_task_that_was_cancelled_cleans_up() -> None:
    dependency = SlowToCleanUp()
    guarded = Pipeline(Hedge(0.1, max_hedges=3, budget=None)).bind(idempotent=True)(dependency)

    async def main() -> None:
        task = asyncio.ensure_future(guarded())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(5)

    on_asyncio(main)

    assert (dependency.calls, dependency.running) == (1, 0)


def test_a_call_that_swallows_its_cancellation_has_no_further_attempt() -> None:
    calls = 0

    async def stubborn() -> str:
        nonlocal calls
        calls += 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(1)
        return "late"

    async def main() -> Any:
        task = asyncio.ensure_future(guarded())
        await asyncio.sleep(0.05)
        task.cancel()
        return await task

    guarded = Pipeline(Hedge(0.1, max_hedges=3, budget=None)).bind(idempotent=True)(stubborn)

    assert on_asyncio(main) == "late"
    assert calls == 1


@each_loop
def test_a_race_inside_of_an_attempt_that_loses_starts_nothing_any_more(run: Run) -> None:
    dependency = SlowToCleanUp()
    inner = Pipeline(Hedge(0.3, max_hedges=3, budget=None)).bind(idempotent=True)(dependency)
    attempts = 0

    async def outer() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await inner()
        return "good"

    async def main() -> Any:
        answer = await Pipeline(Hedge(0.2, budget=None)).bind(idempotent=True).acall(outer)
        await anyio.sleep(5)
        return answer

    assert run(main) == "good"
    assert (dependency.calls, dependency.running) == (1, 0)


def test_a_coroutine_that_is_closed_in_a_race_starts_nothing_any_more() -> None:
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()

    async def main() -> None:
        coroutine = Pipeline(Hedge(0.1, max_hedges=3, budget=None)).bind(idempotent=True).acall(hang)
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
        coroutine.close()
        await asyncio.sleep(5)

    on_asyncio(main)

    assert calls == 1


def test_a_coroutine_that_is_closed_after_its_loop_leaves_no_error() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    coroutine: Any = Pipeline(Hedge(0.0, budget=None)).bind(idempotent=True).acall(hang)

    async def main() -> None:
        with contextlib.suppress(StopIteration):
            coroutine.send(None)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()

    coroutine.close()


def test_a_hedge_that_was_cancelled_before_it_began_costs_nothing() -> None:
    budget = RetryBudget(capacity=5, initial=5)

    async def answer() -> str:
        return "good"

    async def main() -> Any:
        return await Pipeline(Hedge(0.0, budget=budget)).bind(idempotent=True).acall(answer)

    assert on_asyncio(main) == "good"
    assert budget.tokens == 5


@each_loop
@pytest.mark.parametrize(("hint", "attempts", "seconds"), [(2, 2, 2.0), (60, 2, 60.0), (61, 1, 0.0)])
def test_a_hint_of_the_server_is_waited_for_though_nothing_runs(
    run: Run, hint: float, attempts: int, seconds: float
) -> None:
    calls = 0

    async def busy_once() -> Any:
        nonlocal calls
        calls += 1
        return Busy(hint) if calls == 1 else "good"

    async def main() -> tuple[Any, float]:
        started = clock.monotonic()
        answer = await pipeline.bind(idempotent=True).acall(busy_once)
        return answer, clock.monotonic() - started

    pipeline = Pipeline(Hedge(0.1), failures=HTTP_FAILURES)
    answer, took = run(main)

    assert (answer == "good", calls) == (attempts == 2, attempts)
    assert took == pytest.approx(seconds, abs=1e-3)


@each_loop
def test_a_hint_past_the_deadline_ends_the_call_at_once(run: Run) -> None:
    calls = 0

    async def busy() -> Any:
        nonlocal calls
        calls += 1
        return Busy(5)

    async def main() -> tuple[Any, float | None]:
        return await pipeline.bind(idempotent=True).acall(busy), remaining()

    async def within() -> float:
        started = clock.monotonic()
        answer, _ = await main()
        assert isinstance(answer, Busy)
        return clock.monotonic() - started

    pipeline = Pipeline(Timeout(3.0), Hedge(0.1), failures=HTTP_FAILURES)

    assert run(within) == pytest.approx(0.0, abs=1e-3)
    assert calls == 1


@each_loop
def test_a_call_that_waits_for_a_hint_can_be_cancelled(run: Run) -> None:
    calls = 0

    async def busy() -> Any:
        nonlocal calls
        calls += 1
        return Busy(5)

    async def main() -> None:
        with anyio.move_on_after(1) as scope:
            await Pipeline(Hedge(0.1), failures=HTTP_FAILURES).bind(idempotent=True).acall(busy)
        assert scope.cancelled_caught
        await anyio.sleep(20)

    run(main)

    assert calls == 1
