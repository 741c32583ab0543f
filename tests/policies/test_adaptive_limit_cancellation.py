"""Permits of an adaptive limit come back at whichever suspension a call is cancelled, and in a storm of calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resilience import AdaptiveLimit, Pipeline, Retry, backoff
from resilience.testing import virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario
from tests.support.storm import ENOUGH, LIMIT, ROOM, Storm


async def timed_out() -> None:
    """Fail in a way that lowers the limit."""
    raise TimeoutError


@pytest.mark.parametrize("harness", RUNNERS)
@pytest.mark.parametrize("limit", [1, 3])
def test_permits_come_back_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], limit: int
) -> None:
    def scenario() -> Scenario:
        gate = AdaptiveLimit(limit, backoff_ratio=0.5, max_limit=limit, queue=5, max_wait=10.0)

        def check() -> str | None:
            return None if (gate.in_flight, gate.queued) == (0, 0) else str(gate.snapshot())

        return waiting_scenario(
            Pipeline(Retry(3, wait=backoff.fixed(0.5)), gate).acall,
            check,
            holding=Pipeline(gate).acall,
            holders=limit + 1,
            first_attempt=timed_out,
        )

    with virtual_time():
        report = harness(scenario)

    report.must_hold()


@pytest.mark.slow
def test_a_storm_loses_no_permit_while_the_limit_finds_its_way() -> None:
    limit = AdaptiveLimit(LIMIT, max_limit=LIMIT, backoff_ratio=0.5, queue=ROOM, max_wait=0.001)
    storm = Storm(limit)
    storm.rage()
    print(dict(storm.ended), limit.snapshot())

    assert storm.ended["cancelled"] + storm.ended["queue_timeout"] >= ENOUGH
    assert (limit.in_flight, limit.queued, storm.inside) == (0, 0, 0)
    assert storm.most <= limit.peak <= LIMIT
