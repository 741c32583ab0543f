"""The waits of calls for a policy: what is published, and that an interrupted one loses no permit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import (
    Bulkhead,
    BulkheadFullError,
    Cooldown,
    DeadlineExceededError,
    Failure,
    FailureKind,
    Partition,
    Pipeline,
    RateLimit,
    RateLimitedError,
    Timeout,
)
from resilience._outcome.ending import Ending, EndingKind
from resilience.events import Waited
from resilience.testing import Recorder, VirtualClock
from tests.support.loops import Run, each_loop
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def waits(recorder: Recorder) -> list[tuple[str, float, bool]]:
    """The policy, the seconds and whether the call was admitted, for each wait."""
    return [(event.policy, round(event.seconds, 6), event.admitted) for event in recorder.of(Waited)]


@each_way
@pytest.mark.usefixtures("virtual_clock")
class TestWaited:
    def test_a_call_that_need_not_wait_publishes_nothing(self, make: Make) -> None:
        pipeline = Pipeline(Bulkhead(1, queue=1), RateLimit(1.0))
        with Recorder(pipeline) as recorder:
            make(pipeline, int)

        assert waits(recorder) == []

    def test_for_a_slot_of_a_rate_limit(self, make: Make) -> None:
        pipeline = Pipeline(RateLimit(2.0))
        with Recorder(pipeline) as recorder:
            for _ in range(3):
                make(pipeline, int)

        assert waits(recorder) == [("rate_limit", 0.5, True)] * 2
        assert [event.partition_key for event in recorder.of(Waited)] == [None, None]

    def test_in_a_queue_in_vain(self, make: Make) -> None:
        bulkhead = Bulkhead(1, queue=1, max_wait=3.0, name="few")
        pipeline = Pipeline(bulkhead)
        with bulkhead, Recorder(pipeline) as recorder, pytest.raises(BulkheadFullError):
            make(pipeline, int)

        assert waits(recorder) == [("few", 3.0, False)]

    def test_in_a_queue_up_to_the_deadline(self, make: Make) -> None:
        bulkhead = Bulkhead(1, queue=1, max_wait=30.0)
        pipeline = Pipeline(Timeout(2.0), bulkhead)
        with bulkhead, Recorder(pipeline) as recorder, pytest.raises(DeadlineExceededError):
            make(pipeline, int)

        assert waits(recorder) == [("bulkhead", 2.0, False)]

    def test_for_the_end_of_a_cooldown(self, make: Make, virtual_clock: VirtualClock) -> None:
        cooldown = Cooldown(spread=0.0)
        pipeline = Pipeline(cooldown)
        cooldown.settle(None, Ending(EndingKind.FAILED, failure=Failure(FailureKind.OVERLOAD, retry_after=4.0)))
        virtual_clock.advance(1.0)
        with Recorder(pipeline) as recorder:
            make(pipeline, int)

        assert waits(recorder) == [("cooldown", 3.0, True)]

    def test_in_a_partition_it_has_the_key(self, make: Make) -> None:
        pipeline = Pipeline(Partition(lambda: RateLimit(2.0), by=lambda call: "tenant"))
        with Recorder(pipeline) as recorder:
            make(pipeline, int)
            make(pipeline, int)

        assert waits(recorder) == [("rate_limit", 0.5, True)]
        assert [event.partition_key for event in recorder.of(Waited)] == ["tenant"]

    def test_a_wait_that_is_known_to_be_in_vain_has_no_length(self, make: Make) -> None:
        pipeline = Pipeline(RateLimit(1.0, max_wait=0.5))
        with Recorder(pipeline) as recorder:
            make(pipeline, int)
            with pytest.raises(RateLimitedError):
                make(pipeline, int)

        assert waits(recorder) == []


@each_loop
def test_a_wait_that_is_cancelled_is_not_published(run: Run) -> None:
    full = Turnstile(patience=60)
    assert full.take()
    pipeline = Pipeline(full)

    async def main() -> None:
        with anyio.move_on_after(1):
            await pipeline.acall(int)

    with Recorder(pipeline) as recorder:
        run(main)

    assert waits(recorder) == []
    assert len(full.line) == 0


def interrupting(kind: type[BaseException]) -> Callable[[Any], None]:
    def listen(event: Any) -> None:
        raise kind

    return listen


@each_loop
def test_a_granted_permit_comes_back_if_the_listener_is_interrupted(run: Run) -> None:
    limit = Bulkhead(1, queue=1, max_wait=30.0)
    pipeline = Pipeline(limit)

    async def hold() -> None:
        await anyio.sleep(1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.acall, hold)
            await anyio.sleep(0.5)
            with pytest.raises(SystemExit):
                await pipeline.acall(anyio.sleep, 0)
            assert limit.in_flight == 0

    with pipeline.subscribe(interrupting(SystemExit), events=(Waited,)):
        run(main)

    assert (limit.in_flight, limit.queued) == (0, 0)
