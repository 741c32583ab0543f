"""Slots are exact at whichever suspension a call is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import Bulkhead, Pipeline, RateLimit, Retry, backoff
from resilience.testing import VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario

each_runner = pytest.mark.parametrize("harness", RUNNERS)
RATE = 4.0
PIPELINES: dict[str, Callable[[Any], Pipeline[Any]]] = {
    "alone": lambda limit: Pipeline(limit),
    "per attempt": lambda limit: Pipeline(Retry(3, wait=backoff.fixed(0.1)), limit),
    "around retries": lambda limit: Pipeline(limit, Retry(3, wait=backoff.fixed(0.1))),
    "around a bulkhead": lambda limit: Pipeline(limit, Bulkhead(1, queue=5)),
}


class Books:
    """Counts the units that the function was really called for, and compares with what the limit says."""

    def __init__(self, clock: VirtualClock, limit: RateLimit, cost: float, attempts_share: bool) -> None:
        self.clock = clock
        self.limit = limit
        self.cost = cost
        self.attempts_share = attempts_share
        self.full_at = clock.monotonic()

    def took(self) -> None:
        self.full_at = max(self.full_at, self.clock.monotonic()) + self.cost / RATE

    def leaked(self) -> str | None:
        meter = self.limit.source.meter
        owed = max(0.0, meter.full_at - self.clock.monotonic())
        real = max(0.0, self.full_at - self.clock.monotonic())
        if self.limit.queued or meter.tracked:
            return f"{self.limit.queued} wait, {len(meter.tracked)} are tracked"
        if not self.attempts_share and abs(owed - real) > 1e-6:
            return f"the bucket is full in {owed:g} s, and should be in {real:g} s"
        return None


def scenario(clock: VirtualClock, name: str, settings: dict[str, Any], combined: bool) -> Scenario:
    limit = RateLimit(RATE, max_wait=60, **settings)
    gate: Any = RateLimit.all_of(limit, RateLimit(1e6, burst=1e6)) if combined else limit
    books = Books(clock, limit, settings.get("cost", 1.0), name == "around retries")
    pipeline = PIPELINES[name](gate)

    def counted(guard: Callable[..., Any]) -> Callable[..., Any]:
        async def call(function: Callable[[], Any]) -> Any:
            async def counting() -> Any:
                books.took()
                return await function()

            return await guard(counting)

        return call

    return waiting_scenario(counted(pipeline.acall), books.leaked, holding=counted(Pipeline(gate).acall))


@each_runner
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize(
    ("settings", "combined"),
    [({}, False), ({"cost": 2.0}, False), ({"actual": lambda _: None}, False), ({}, True)],
    ids=["plain", "cost", "actual", "all_of"],
)
def test_slots_are_exact_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], name: str, settings: dict[str, Any], combined: bool
) -> None:
    with virtual_time() as clock:
        report = harness(lambda: scenario(clock, name, settings, combined))

    report.must_hold()
