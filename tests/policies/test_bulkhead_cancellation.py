"""Permits of a bulkhead come back at whichever suspension a call is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import Pipeline, Retry, backoff
from resilience._policies.bulkhead import Bulkhead
from resilience.testing import virtual_time
from tests.policies.helpers import idle
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario

each_runner = pytest.mark.parametrize("harness", RUNNERS)


def crowded(bulkhead: Bulkhead, make: Callable[[Bulkhead], Pipeline[Any]]) -> Scenario:
    """A call whose first attempt fails, while others hold the permits at first."""
    pipeline = make(bulkhead)

    def check() -> str | None:
        return None if idle(bulkhead) else str(bulkhead.snapshot())

    holders = 2 if bulkhead.settings.queue else 0
    return waiting_scenario(pipeline.acall, check, holding=Pipeline(bulkhead).acall, holders=holders)


PIPELINES: dict[str, Callable[[Bulkhead], Pipeline[Any]]] = {
    "alone": lambda bulkhead: Pipeline(bulkhead),
    "per attempt": lambda bulkhead: Pipeline(Retry(3, wait=backoff.fixed(0.5)), bulkhead),
    "around retries": lambda bulkhead: Pipeline(bulkhead, Retry(3, wait=backoff.fixed(0.5))),
    "twice": lambda bulkhead: Pipeline(Retry(3, wait=backoff.none()), Bulkhead(1, queue=1), bulkhead),
}


@each_runner
@pytest.mark.parametrize("queue", [0, 5])
@pytest.mark.parametrize("name", PIPELINES)
def test_permits_come_back_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], name: str, queue: int
) -> None:
    with virtual_time():
        report = harness(lambda: crowded(Bulkhead(1, queue=queue, max_wait=10.0), PIPELINES[name]))

    report.must_hold()


@each_runner
def test_permits_come_back_when_the_wait_in_the_queue_may_time_out(
    harness: Callable[[Callable[[], Scenario]], Report],
) -> None:
    """One permit is held for longer than the wait, so that cancellation also meets a wait that is over."""
    with virtual_time() as clock:

        def scenario() -> Scenario:
            bulkhead = Bulkhead(1, queue=5, max_wait=0.5)
            one = crowded(bulkhead, PIPELINES["per attempt"])

            async def patient() -> None:
                clock.advance(0.4)
                await Pipeline(bulkhead).acall(anyio.lowlevel.checkpoint)

            one.helpers.append(patient)
            return one

        report = harness(scenario)

    report.must_hold()
