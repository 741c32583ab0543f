"""Bulkhead, Retry, CircuitBreaker and Timeout in one pipeline: what is asked when, and without any lock held."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    Call,
    CircuitBreaker,
    Ending,
    Gate,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
)
from resilience._util.locks import holds_any_lock
from resilience.testing import VirtualClock
from tests.support.loops import Run, each_loop


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
    breaker = CircuitBreaker(consecutive_failures=4)
    pipeline = Pipeline(Retry(5, wait=backoff.none()), breaker)

    async def fails() -> None:
        raise ConnectionError("down")

    async def main() -> None:
        with pytest.raises(ConnectionError) as caught:
            await pipeline.acall(fails)
        assert caught.value.__notes__ == ["resilience: attempt 3 not made: circuit open"]

    run(main)


def test_no_lock_is_held_while_code_of_the_users_runs(virtual_clock: VirtualClock) -> None:
    held: list[str] = []

    def look(where: str) -> None:
        if holds_any_lock():
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
        virtual_clock.advance(1)

    assert held == []
    assert {"BreakerChanged", "Rejected", "RetryScheduled", "CallEnded"} <= set(seen)
