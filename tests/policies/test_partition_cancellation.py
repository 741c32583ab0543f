"""Permits of a partition come back at whichever suspension a call is cancelled, and nothing stays in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import Bulkhead, Partition, Pipeline, Retry, RetryBudget, backoff
from resilience.testing import virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario

Make = Callable[[Partition[Bulkhead], Partition[RetryBudget]], Pipeline[Any]]
PIPELINES: dict[str, Make] = {
    "alone": lambda bulkheads, _: Pipeline(bulkheads),
    "per attempt": lambda bulkheads, budgets: Pipeline(Retry(3, wait=backoff.fixed(0.5)), bulkheads, budget=budgets),
    "around retries": lambda bulkheads, budgets: Pipeline(bulkheads, Retry(3, wait=backoff.none()), budget=budgets),
    "in a shadow": lambda bulkheads, _: Pipeline(bulkheads, Pipeline(bulkheads, mode="shadow")),
}


def leaked(*partitions: Partition[Any]) -> str | None:
    """Return what is still in use, or counted as such; and what is not evicted after it was idle for long."""
    members = [one for partition in partitions for one in (partition._rest, *partition._members)]
    if any(one.users for one in members):
        return f"in use: {[(one.key, len(one.users)) for one in members]}"
    bulkheads = [one.policy for one in members if isinstance(one.policy, Bulkhead)]
    if any((one.in_flight, one.queued) != (0, 0) for one in bulkheads):
        return str([one.snapshot() for one in bulkheads])
    return None


@pytest.mark.filterwarnings("ignore:bulkhead is contained twice")
@pytest.mark.parametrize("harness", RUNNERS)
@pytest.mark.parametrize("max_keys", [1, 2])
@pytest.mark.parametrize("queue", [0, 5])
@pytest.mark.parametrize("name", PIPELINES)
def test_permits_come_back_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], name: str, queue: int, max_keys: int
) -> None:
    """With one place for two keys, the call under test uses the overflow policy."""

    def scenario() -> Scenario:
        bulkheads = Partition(lambda: Bulkhead(1, queue=queue, max_wait=10.0), max_keys=max_keys, idle=100.0)
        budgets = Partition(RetryBudget, max_keys=max_keys)
        bulkheads.of("first")
        pipeline = PIPELINES[name](bulkheads, budgets).bind(target="second")
        holding = Pipeline(bulkheads).bind(target="second")

        def check() -> str | None:
            found = leaked(bulkheads, budgets)
            clock.advance(100.0)
            return found or (f"{len(bulkheads)} are left" if len(bulkheads) else None)

        return waiting_scenario(pipeline.acall, check, holding=holding.acall, holders=2 if queue else 0)

    with virtual_time() as clock:
        report = harness(scenario)

    report.must_hold()


@pytest.mark.parametrize("harness", RUNNERS)
def test_blocks_give_back_their_permit_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report],
) -> None:
    def scenario() -> Scenario:
        bulkheads = Partition(lambda: Bulkhead(1, queue=5, max_wait=10.0))

        async def guard(work: Callable[[], Any]) -> Any:
            async with bulkheads.calling("key"):
                return await work()

        return waiting_scenario(guard, lambda: leaked(bulkheads), holding=guard, holders=2, first_attempt=None)

    with virtual_time():
        report = harness(scenario)

    report.must_hold()
