"""Timeout, Retry, Bulkhead and CircuitBreaker in one pipeline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import (
    Allowlist,
    Bulkhead,
    Call,
    CircuitBreaker,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Gate,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
    deadline_after,
)
from resilience._util.clock import clock
from resilience._util.locks import any_locked
from resilience.testing import VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario

Main: TypeAlias = "Callable[[], Awaitable[Any]]"
Run: TypeAlias = "Callable[[Main], Any]"


def on_asyncio(main: Main) -> Any:
    async def run() -> Any:
        return await main()

    with virtual_time():
        return asyncio.run(run())


def on_trio(main: Main) -> Any:
    with virtual_time() as clock:
        return trio.run(main, clock=clock.trio())


each_loop = pytest.mark.parametrize("run", [on_asyncio, on_trio])


async def hang() -> None:
    await anyio.Event().wait()


async def healthy() -> str:
    await anyio.sleep(0.02)
    return "fine"


@each_loop
def test_callers_in_a_hurry_never_open_the_breaker(run: Run) -> None:
    breaker = CircuitBreaker(consecutive_failures=3, min_calls=3)
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
    breaker = CircuitBreaker(consecutive_failures=3)
    pipeline = Pipeline(breaker, Timeout(1)) if inside else Pipeline(Timeout(1), breaker)

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(DeadlineExceededError):
                await pipeline.acall(hang)
        with pytest.raises(RejectedError):
            await pipeline.acall(hang)

    run(main)

    assert breaker.state == "open"


def test_a_deadline_that_expired_before_the_call_is_not_scored(virtual_time: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    with deadline_after(0), pytest.raises(DeadlineExceededError):
        Pipeline(breaker).call(print)

    assert (breaker.state, breaker.snapshot()["calls"]) == ("closed", 0)


def test_late_values_open_it_and_are_returned(virtual_time: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=2)
    pipeline = Pipeline(breaker, Timeout(1))

    def late() -> str:
        virtual_time.advance(1)
        return "late"

    assert [pipeline.call(late) for _ in range(2)] == ["late", "late"]
    assert breaker.state == "open"


@each_loop
def test_whoever_queued_asks_the_breaker_just_before_the_call(run: Run) -> None:
    bulkhead, breaker = Bulkhead(1, queue=10), CircuitBreaker(consecutive_failures=1)
    pipeline = Pipeline(bulkhead, breaker)
    calls: list[int] = []

    async def fails() -> None:
        calls.append(1)
        await anyio.sleep(0.1)
        raise ConnectionError

    async def one() -> None:
        with pytest.raises((ConnectionError, RejectedError)):
            await pipeline.acall(fails)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)

    run(main)

    assert calls == [1]
    assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


@each_loop
def test_a_refused_retry_raises_the_last_real_failure(run: Run) -> None:
    breaker = CircuitBreaker(consecutive_failures=2)
    pipeline = Pipeline(Retry(5, wait=backoff.none()), breaker)

    async def fails() -> None:
        raise ConnectionError("down")

    async def main() -> None:
        with pytest.raises(ConnectionError) as caught:
            await pipeline.acall(fails)
        assert caught.value.__notes__ == ["resilience: attempt 3 not made: circuit open"]

    run(main)


class Forgetful(CircuitBreaker):
    """A planted leak: a cancelled probe does not give its place back."""

    def settle(self, token: Any, ending: Ending) -> None:
        if ending.kind != "abandoned":
            super().settle(token, ending)


def scenario(*, half_open: bool, queue: int, kind: type[CircuitBreaker] = CircuitBreaker) -> Scenario:
    bulkhead = Bulkhead(1 if queue else 5, queue=queue, max_wait=10)
    breaker = kind(consecutive_failures=1, half_open_calls=2, probe_timeout=1000)
    pipeline = Pipeline(Timeout(60), Retry(3, wait=backoff.fixed(0.1)), bulkhead, breaker, Timeout(1))
    attempts = 0
    if half_open:
        token = breaker.admit(_call(pipeline))
        breaker.settle(token, _failed())
        _advance(40)

    async def fetch() -> str:
        nonlocal attempts
        await anyio.lowlevel.checkpoint()
        attempts += 1
        if attempts == 1 and not half_open:
            raise TimeoutError
        await anyio.lowlevel.checkpoint()
        return "fine"

    async def hold() -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    async def holder() -> None:
        await Pipeline(bulkhead).acall(hold)

    def check() -> str | None:
        left = (bulkhead.in_flight, bulkhead.queued, pipeline.snapshot()["in_flight"])
        if left != (0, 0, 0):
            return f"in flight, queued, counted: {left}"
        if half_open and breaker.state == "half_open":
            missing = 2 - len([1 for _ in range(3) if _admitted(breaker, pipeline)])
            return f"{missing} probes are gone" if missing > 0 and breaker.state == "half_open" else None
        return None

    return Scenario(call=lambda: pipeline.acall(fetch), check=check, helpers=[holder] if queue else [])


def _call(pipeline: Pipeline[Any]) -> Any:
    _, binding = pipeline.entry()
    return Call(binding, print, (), {})


def _failed() -> Any:
    return Ending(EndingKind.TIMED_OUT, DeadlineExceededError())


def _advance(seconds: float) -> None:
    virtual = clock.time
    assert isinstance(virtual, VirtualClock)
    virtual.advance(seconds)


def _admitted(breaker: CircuitBreaker, pipeline: Pipeline[Any]) -> bool:
    try:
        breaker.admit(_call(pipeline))
    except RejectedError:
        return False
    return True


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("half_open", [False, True])
@pytest.mark.parametrize("queue", [0, 10])
def test_everything_comes_back_wherever_cancellation_strikes(
    run: Callable[[Callable[[], Scenario]], Report], half_open: bool, queue: int
) -> None:
    with virtual_time():
        report = run(lambda: scenario(half_open=half_open, queue=queue))

    report.must_hold()


@pytest.mark.parametrize("run", RUNNERS)
def test_a_probe_that_is_lost_is_caught(run: Callable[[Callable[[], Scenario]], Report]) -> None:
    with virtual_time():
        report = run(lambda: scenario(half_open=True, queue=0, kind=Forgetful))

    assert any("probes are gone" in wrong for wrong in report.wrong)


def test_sixteen_threads_at_a_half_open_breaker(virtual_time: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, half_open_calls=3)
    pipeline = Pipeline(breaker)
    with pytest.raises(ConnectionError):
        pipeline.call(_raise, ConnectionError())
    virtual_time.advance(2)
    go, hold = threading.Barrier(16), threading.Event()
    calls: list[int] = []
    refused: list[int] = []

    def probe() -> None:
        calls.append(1)
        hold.wait(10)

    def one() -> None:
        go.wait(10)
        try:
            pipeline.call(probe)
        except RejectedError:
            refused.append(1)

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    while len(refused) < 13:
        pass
    hold.set()
    for thread in threads:
        thread.join(10)

    assert (len(calls), len(refused), breaker.state) == (3, 13, "closed")


def _raise(error: Exception) -> None:
    raise error


def test_no_lock_is_held_while_code_of_the_users_runs(virtual_time: VirtualClock) -> None:
    held: list[str] = []

    def look(where: str) -> None:
        if any_locked():
            held.append(where)

    def listed(error: Exception) -> bool:
        look("predicate")
        return True

    class Looks(Gate[None]):
        def admit(self, call: Call) -> None:
            look("admit")

        def settle(self, token: Any, ending: Ending) -> None:
            look("settle")

    class Waits(backoff.fixed):
        def seconds(self, retry: int, previous: float | None) -> float:
            look("backoff")
            return 1.0

    breaker = CircuitBreaker(consecutive_failures=2, on=Allowlist(when=listed))
    pipeline = Pipeline(
        Looks(), Retry(3, wait=Waits(1)), Bulkhead(1), breaker, Looks(), Timeout(5), failures=Allowlist(when=listed)
    )
    seen: list[str] = []

    def listen(event: Any) -> None:
        seen.append(type(event).__name__)
        look("listener")

    pipeline.subscribe(listen)

    def fails() -> None:
        look("function")
        raise ConnectionError("down")

    for _ in range(3):
        with pytest.raises((ConnectionError, RejectedError)):
            pipeline.call(fails)
        virtual_time.advance(1)

    assert held == []
    assert {"BreakerChanged", "Rejected", "RetryScheduled", "CallEnded"} <= set(seen)
