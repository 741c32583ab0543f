"""Virtual time and seeded chance, in threads, asyncio and trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import (
    Bulkhead,
    BulkheadFullError,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
)
from resilience._util.clock import clock
from resilience.testing import VirtualClock, VirtualLoop, reset, seeded, virtual_loop, virtual_time
from tests.support.functions import down
from tests.support.functions import down as fail
from tests.support.loops import LOOPS
from tests.support.threads import PATIENCE, wait_until
from tests.support.turnstile import Turnstile


@pytest.mark.filterwarnings("ignore:there are two pipelines")
@pytest.mark.parametrize("run", LOOPS)
def test_retry_waits_take_virtual_time_only(run: Callable[[Callable[[], Any]], Any]) -> None:
    attempts: dict[str, int] = {}

    async def fetch(who: str) -> str:
        attempts[who] = attempts.get(who, 0) + 1
        if attempts[who] < 3:
            raise ConnectionError
        order.append(who)
        return who

    order: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(Pipeline(Retry(3, wait=backoff.fixed(100.0)), name="slow")(fetch), "slow")
            group.start_soon(Pipeline(Retry(3, wait=backoff.fixed(30.0)), name="quick")(fetch), "quick")

    with virtual_time() as clock:
        run(main)

    assert order == ["quick", "slow"]
    assert clock.elapsed == pytest.approx(200.0)


def test_a_virtual_loop_and_a_virtual_trio_clock_take_everything_along() -> None:
    with virtual_time() as clock:
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            assert isinstance(runner.get_loop(), VirtualLoop)
            runner.run(asyncio.sleep(3600))
        assert clock.elapsed == pytest.approx(3600.0)
        trio.run(trio.sleep, 3600, clock=clock.trio())
        assert clock.elapsed == pytest.approx(7200.0)
        gate = Turnstile()
        gate.take()

        async def main() -> None:
            with pytest.raises(RejectedError):
                await Pipeline(gate).acall(int)

        trio.run(main, clock=clock.trio())
        assert clock.elapsed == pytest.approx(7201.0)


def test_the_clock_is_moved_by_hand() -> None:
    with virtual_time() as clock:
        before = clock.monotonic()
        clock.advance(2.5)
        clock.jump(before)
        assert clock.monotonic() - before == 2.5
        for bad in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="seconds must be a number >= 0"):
                clock.advance(bad)


def test_seeded_jitter_repeats_itself_and_reset_forgets() -> None:
    waits: list[list[float]] = []
    pipeline = Pipeline(Retry(3))
    for _ in range(2):
        with virtual_time() as clock, seeded(7), pytest.raises(ConnectionError):
            pipeline.call(fail)
        waits.append(clock.sleeps)
    assert waits[0] == waits[1]
    assert pipeline.snapshot()["budget"]["tokens"] == 6.0
    reset()
    assert pipeline.snapshot()["budget"]["tokens"] == 10.0


def test_virtual_times_may_overlap() -> None:
    before, chance = clock.time, clock.random
    first, second = virtual_time(), virtual_time()
    one, other = seeded(1), seeded(2)
    virtual = first.__enter__()
    another = second.__enter__()
    one.__enter__()
    other.__enter__()

    first.__exit__(None, None, None)
    one.__exit__(None, None, None)
    assert clock.time is another is not virtual
    second.__exit__(None, None, None)
    other.__exit__(None, None, None)

    assert clock.time is before
    assert clock.random is chance


def test_a_wait_in_a_queue_is_no_sleep() -> None:
    gate = Turnstile(patience=5)
    assert gate.take()

    async def main() -> None:
        with pytest.raises(RejectedError):
            await Pipeline(gate).acall(down)

    with virtual_time() as clock:
        asyncio.run(main())

    assert clock.sleeps == []
    assert clock.elapsed == pytest.approx(5)


class TestThreads:
    """Calls by `Timeout(thread=True)`."""

    def test_no_time_passes_while_a_function_works(self, virtual_clock: VirtualClock) -> None:
        def work() -> str:
            threading.Event().wait(0.1)
            return "done"

        assert Pipeline(Timeout(0.05, thread=True)).call(work) == "done"
        assert virtual_clock.elapsed == 0

    def test_what_waits_in_one_waits_in_virtual_time(self, virtual_clock: VirtualClock) -> None:
        with pytest.raises(ConnectionError):
            Pipeline(Timeout(1000, thread=True), Retry(3, wait=backoff.fixed(60))).call(down)

        assert virtual_clock.elapsed == pytest.approx(120)

    def test_a_function_that_hangs_may_advance_the_time_and_is_not_waited_for_again(
        self, virtual_clock: VirtualClock
    ) -> None:
        virtual_clock.patience = PATIENCE
        release = threading.Event()

        def hang() -> None:
            virtual_clock.advance(1)
            release.wait(PATIENCE)

        try:
            with pytest.raises(DeadlineExceededError, match=r"it had 1 s of virtual time"):
                Pipeline(Retry(3, wait=backoff.fixed(60)), Timeout(1, thread=True)).call(hang)
        finally:
            release.set()

        assert virtual_clock.elapsed == 123

    def test_a_function_that_works_for_too_long_counts_as_hanging_and_the_error_says_that_time_was_virtual(
        self, virtual_clock: VirtualClock
    ) -> None:
        virtual_clock.patience = 0.05
        release = threading.Event()

        try:
            with pytest.raises(DeadlineExceededError, match=r"it had 1 s of virtual time"):
                Pipeline(Timeout(1, thread=True)).call(release.wait, PATIENCE)
        finally:
            release.set()

    def test_a_call_in_a_queue_waits_for_one_that_works(self, virtual_clock: VirtualClock) -> None:
        bulkhead = Bulkhead(1, queue=1, max_wait=1.0)
        pipeline = Pipeline(bulkhead, Timeout(1.0, thread=True))
        begun = threading.Event()
        seen: list[tuple[int, float]] = []

        def work() -> None:
            begun.set()
            wait_until(lambda: bulkhead.queued == 1)
            threading.Event().wait(0.1)
            seen.append((bulkhead.queued, virtual_clock.elapsed))

        thread = threading.Thread(target=pipeline.call, args=(work,))
        thread.start()
        assert begun.wait(PATIENCE)
        with suppress(BulkheadFullError):  # on a busy machine
            pipeline.call(int)
        thread.join(PATIENCE)

        assert seen == [(1, 0)]
