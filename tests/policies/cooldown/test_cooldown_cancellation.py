"""Calls that wait for the end of a pause are cancelled at each of their suspensions: no place in the queue is lost."""

from __future__ import annotations

from collections.abc import Callable

import anyio.lowlevel
import pytest

from resilience import Allowlist, Cooldown, Failure, FailureKind, Pipeline, Retry, backoff
from resilience.testing import seeded, virtual_time
from tests.policies.cooldown.helpers import Busy, asked
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario

BUSY = Allowlist(Busy, when=lambda error: Failure(FailureKind.OVERLOAD, 2.0))


async def busy() -> None:
    """Begin a pause."""
    raise Busy(2.0)


@pytest.mark.parametrize("harness", RUNNERS)
@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("paused", [False, True])
def test_no_place_is_lost_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], spread: float, paused: bool
) -> None:
    """Others wait before and behind the call; they are all served, and nobody is left in the queue."""

    def scenario() -> Scenario:
        cooldown = Cooldown(spread=spread)
        served: list[int] = []
        if paused:
            cooldown.settle(None, asked(2.0))

        def check() -> str | None:
            return None if (cooldown.queued, len(served)) == (0, 3) else f"{cooldown.snapshot()}, served {served}"

        async def other() -> None:
            async def work() -> None:
                await anyio.lowlevel.checkpoint()
                served.append(1)

            await Pipeline(cooldown).acall(work)

        one = waiting_scenario(
            Pipeline(Retry(3, wait=backoff.fixed(0.5)), cooldown, failures=BUSY).acall,
            check,
            holding=Pipeline(cooldown).acall,
            holders=0,
            first_attempt=busy,
        )
        one.helpers.extend([other] * 3)
        return one

    with virtual_time(), seeded(2):
        report = harness(scenario)

    report.must_hold()
