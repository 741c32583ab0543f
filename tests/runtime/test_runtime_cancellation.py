"""Cancellation from outside, and timeouts of the user's own, of calls that have a deadline."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from resilience import DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience.testing import virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario
from tests.support.functions import hang
from tests.support.loops import Run, each_loop, uncancelled
from tests.support.turnstile import Turnstile


@each_loop
def test_cancellation_from_outside_stays_cancellation(run: Run) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(10), gate)

    async def main() -> None:
        with anyio.move_on_after(1) as scope:
            await pipeline.acall(hang)
        assert scope.cancelled_caught
        assert uncancelled()
        await anyio.lowlevel.checkpoint()

    run(main)

    assert gate.endings == ["abandoned"]


@each_loop
def test_an_outer_scope_wins_a_tie(run: Run) -> None:
    pipeline = Pipeline(Timeout(1))

    async def main() -> None:
        with anyio.move_on_after(1) as scope:
            await pipeline.acall(hang)
        assert scope.cancelled_caught
        assert uncancelled()
        await anyio.lowlevel.checkpoint()

    run(main)


@each_loop
def test_the_users_own_timeout_stays_the_users(run: Run) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(10), gate, failures=ConnectionError)

    async def own() -> None:
        with anyio.fail_after(1):
            await anyio.Event().wait()

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            await pipeline.acall(own)
        assert not isinstance(caught.value, DeadlineExceededError)

    run(main)

    assert gate.endings == ["error"]


@each_loop
def test_the_users_own_timeout_may_be_tried_again_inside(run: Run) -> None:
    pipeline = Pipeline(Timeout(2.5))
    tries: list[int] = []

    async def own() -> None:
        while True:
            with anyio.move_on_after(1):
                await anyio.Event().wait()
            tries.append(1)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await pipeline.acall(own)

    run(main)

    assert len(tries) == 2


def with_timeouts(gate: Turnstile) -> Scenario:
    pipeline = Pipeline(Timeout(10), Retry(3, wait=backoff.fixed(0.5)), gate, Timeout(1))

    def check() -> str | None:
        return gate.leaked() or (None if pipeline.snapshot()["in_flight"] == 0 else "the pipeline still counts a call")

    return waiting_scenario(pipeline.acall, check, holding=Pipeline(gate).acall, first_attempt=hang)


@pytest.mark.parametrize("run", RUNNERS)
def test_permits_come_back_wherever_cancellation_strikes(run: Callable[[Callable[[], Scenario]], Report]) -> None:
    with virtual_time():
        report = run(lambda: with_timeouts(Turnstile()))

    report.must_hold()
    assert report.visited >= 4
