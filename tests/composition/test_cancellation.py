"""Timeout, Retry, Bulkhead and CircuitBreaker in one pipeline that is cancelled at every suspension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    Call,
    CircuitBreaker,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
)
from resilience._util.clock import clock
from resilience.testing import VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario


class Forgetful(CircuitBreaker):
    """A planted leak: a cancelled probe does not give its place back."""

    def settle(self, token: Any, ending: Ending) -> None:
        if ending.kind != "abandoned":
            super().settle(token, ending)


def scenario(*, half_open: bool, queue: int, kind: type[CircuitBreaker] = CircuitBreaker) -> Scenario:
    bulkhead = Bulkhead(1 if queue else 5, queue=queue, max_wait=10)
    breaker = kind(consecutive_failures=1, half_open_calls=2, probe_timeout=1000)
    pipeline = Pipeline(Timeout(60), Retry(3, wait=backoff.fixed(0.1)), bulkhead, breaker, Timeout(1))
    if half_open:
        token = breaker.admit(_call(pipeline))
        breaker.settle(token, _failed())
        _advance(40)

    async def times_out() -> None:
        raise TimeoutError

    def check() -> str | None:
        left = (bulkhead.in_flight, bulkhead.queued, pipeline.snapshot()["in_flight"])
        if left != (0, 0, 0):
            return f"in flight, queued, counted: {left}"
        if half_open and breaker.state == "half_open":
            missing = 2 - len([1 for _ in range(3) if _admitted(breaker, pipeline)])
            return f"{missing} probes are gone" if missing > 0 and breaker.state == "half_open" else None
        return None

    return waiting_scenario(
        pipeline.acall,
        check,
        holding=Pipeline(bulkhead).acall,
        holders=1 if queue else 0,
        first_attempt=None if half_open else times_out,
    )


def _call(pipeline: Pipeline[Any]) -> Any:
    _, binding = pipeline.entry()
    return Call.make(binding, print, (), {})


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
