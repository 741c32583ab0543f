"""Retry and Cooldown in front of an API with a quota: who is turned away, and who is served in the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio

from resilience import Allowlist, Cooldown, Failure, FailureKind, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import clock
from resilience.testing import seeded
from tests.support.loops import Run, each_loop

QUOTA = 60
CALLERS = 200
MINUTE = 60.0
LATENCY = 0.05


class TooManyRequests(Exception):
    """HTTP 429 with Retry-After."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


LIMITED = Allowlist(
    TooManyRequests,
    when=lambda error: Failure(
        FailureKind.OVERLOAD, getattr(error, "retry_after", None), unprocessed=True, counted=False
    ),
)


class Api:
    """Takes 60 requests in each minute, and turns the others away until the next."""

    def __init__(self) -> None:
        self.start = clock.monotonic()
        self.taken: Counter[int] = Counter()
        self.turned_away: Counter[int] = Counter()

    async def get(self) -> None:
        await anyio.sleep(LATENCY)
        now = clock.monotonic() - self.start
        minute = int(now // MINUTE)
        resets_in = (minute + 1) * MINUTE - now
        if self.taken[minute] >= QUOTA:
            self.turned_away[minute] += 1
            raise TooManyRequests(resets_in)
        self.taken[minute] += 1


async def load(pipeline: Pipeline[Any], api: Api) -> int:
    """Have 200 callers come at once; return how many are served."""
    served = 0

    async def caller() -> None:
        nonlocal served
        try:
            await pipeline.acall(api.get)
        except TooManyRequests:
            return
        served += 1

    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(caller)
    return served


def run_with(run: Run, *policies: Any) -> tuple[Api, int]:
    found: list[Any] = []

    async def main() -> None:
        api = Api()
        retry = Retry(attempts=5, wait=backoff.none())
        pipeline = Pipeline(Timeout(600.0), retry, *policies, failures=LIMITED, budget=None)
        found.extend([api, await load(pipeline, api)])

    with seeded(4):
        run(main)
    return found[0], found[1]


@each_loop
def test_with_retry_alone_the_server_turns_many_away_in_the_next_minute(run: Run) -> None:
    api, _ = run_with(run)
    print(dict(api.turned_away))

    assert api.turned_away[0] == CALLERS - QUOTA
    assert api.turned_away[1] >= 70


@each_loop
def test_with_cooldown_hardly_anybody_is_turned_away_after_the_first_burst_and_all_are_served(run: Run) -> None:
    cooldown = Cooldown()
    api, served = run_with(run, cooldown)
    print(dict(api.turned_away), dict(api.taken))

    assert api.turned_away.pop(0) == CALLERS - QUOTA
    assert all(number <= 10 for number in api.turned_away.values())
    assert served == CALLERS
    assert cooldown.queued == 0
