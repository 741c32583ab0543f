"""Calls that wait in the queue of a cooldown, on threads, asyncio and trio, and in all of them at once."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import (
    Allowlist,
    Cooldown,
    DeadlineExceededError,
    Failure,
    FailureKind,
    Pipeline,
    RateLimitedError,
    Timeout,
)
from resilience._runtime import threads
from resilience._util.clock import FOREVER, clock
from resilience.testing import seeded, virtual_time
from tests.policies.cooldown.helpers import Busy, asked, paused, queued
from tests.support.loops import LOOPS, Run, each_loop, on_trio, uvloop_too
from tests.support.threads import in_threads

BUSY = Allowlist(Busy, when=lambda error: Failure(FailureKind.OVERLOAD, getattr(error, "retry_after", None)))


@uvloop_too
def test_a_thousand_waiters_are_spread_in_order_and_none_is_lost(run: Run) -> None:
    went: list[tuple[float, int]] = []

    async def main() -> None:
        start = clock.monotonic()
        pipeline = Pipeline(paused(50.0), Timeout(600.0))

        async def one(number: int) -> None:
            async def work() -> None:
                went.append((clock.monotonic() - start, number))

            await pipeline.acall(work)

        async with anyio.create_task_group() as group:
            for number in range(1000):
                group.start_soon(one, number)

    with seeded(7):
        run(main)
    times = [at for at, _ in went]
    numbers = [number for _, number in went]

    assert sorted(numbers) == list(range(1000))
    assert numbers == list(range(1000)) or run is on_trio  # trio starts tasks in random order
    assert all(50.0 <= at <= 60.1 for at in times)
    assert times == sorted(times)
    assert times[0] < 50.2
    assert times[-1] > 59.5
    for second in range(50, 60):  # 100 in each, give or take
        assert 60 <= sum(second <= at < second + 1 for at in times) <= 145
    assert max(after - before for before, after in pairwise(times)) < 0.2


@each_loop
def test_newcomers_queue_behind_those_who_wait(run: Run) -> None:
    order: list[str] = []

    async def main() -> None:
        cooldown = paused(10.0)
        pipeline = Pipeline(cooldown)
        start = clock.monotonic()

        async def one(name: str, at: float) -> None:
            await anyio.sleep(start + at - clock.monotonic())
            await pipeline.acall(order.append, name)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, "early", number * 0.1)
            group.start_soon(one, "late", 10.5)
            group.start_soon(one, "after", 12.5)

    with seeded(1):
        run(main)

    assert order == ["early"] * 20 + ["late", "after"]


def test_threads_wait_and_are_served_in_order() -> None:
    with virtual_time() as virtual, seeded(5):
        cooldown = paused(30.0)
        pipeline = Pipeline(cooldown)
        served: list[float] = []
        start = virtual.elapsed

        def work(_: int) -> None:
            pipeline.call(lambda: served.append(virtual.elapsed - start))

        in_threads(12, work)

    assert len(served) == 12
    assert all(at >= 30.0 for at in served)
    assert cooldown.queued == 0


def test_threads_asyncio_and_trio_wait_in_one_queue() -> None:
    """In real time, since three clocks at once are at work; the pause is short."""
    cooldown = Cooldown(spread=1.0)
    pipeline = Pipeline(cooldown)
    served: list[str] = []
    cooldown.settle(None, asked(0.1))

    async def tasks(name: str) -> None:
        async def one() -> None:
            await pipeline.acall(served.append, name)

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(one)

    def thread() -> None:
        pipeline.call(served.append, "thread")

    jobs = [
        lambda: asyncio.run(tasks("asyncio")),
        lambda: trio.run(tasks, "trio"),
        *[thread] * 6,
    ]
    in_threads(len(jobs), lambda index: jobs[index]())

    assert sorted(served) == sorted(["asyncio", "trio"] * 30 + ["thread"] * 6)
    assert cooldown.queued == 0


@pytest.mark.parametrize("run", LOOPS)
def test_who_waits_in_vain(run: Run) -> None:
    ended: list[str] = []

    async def main() -> None:
        cooldown = paused(10.0, max_wait=11.0)
        pipeline, hurried = Pipeline(cooldown), Pipeline(Timeout(10.5), cooldown)

        async def one(pipeline: Pipeline[int]) -> None:
            with pytest.raises((RateLimitedError, DeadlineExceededError)) as caught:
                await pipeline.acall(int)
            ended.append(type(caught.value).__name__)
            assert caught.value.unprocessed
            assert getattr(caught.value, "retry_after", 49.0) == pytest.approx(49.0)

        async with anyio.create_task_group() as group:
            group.start_soon(one, pipeline)
            group.start_soon(one, hurried)
            while cooldown.queued < 2:
                await anyio.lowlevel.checkpoint()
            cooldown.settle(None, asked(60.0))

    with virtual_time():
        run(main)

    assert sorted(ended) == ["DeadlineExceededError", "RateLimitedError"]


def test_a_ticket_that_is_woken_twice_before_it_parks_again_is_not_lost() -> None:
    """A lock that is released twice raises an error, which the queue would take for a closed event loop."""
    with virtual_time() as virtual, seeded(1):
        cooldown = paused(10.0)
        first, second = queued(cooldown), queued(cooldown)
        woken: list[bool] = []

        def wait(lock: threading.Lock, seconds: float) -> bool:
            virtual.advance(10.0)
            first.leave()  # the second is the first now, and is to look earlier
            virtual.advance(2.0)
            assert not lock.locked()
            queued(cooldown)  # it grants what is due: the second may go
            woken.append(lock.locked())
            return True

        threads._wait(wait, second, FOREVER)

        assert woken == [False]
        assert second.acquire()


def test_a_loop_closed_with_waiters_in_it_stops_nobody() -> None:
    with virtual_time() as virtual:
        cooldown = paused(10.0)
        pipeline = Pipeline(cooldown)
        loop = asyncio.new_event_loop()
        task = loop.create_task(pipeline.acall(int))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert cooldown.queued == 1
        loop.close()
        start = virtual.elapsed

        assert pipeline.call(lambda: virtual.elapsed - start) <= 12.0
        assert cooldown.queued == 0
        with pytest.raises(asyncio.InvalidStateError):
            task.result()


def test_decorated_calls_wait_for_what_the_server_has_asked_of_one() -> None:
    with virtual_time() as virtual:
        pipeline = Pipeline(Cooldown(spread=0.0), failures=BUSY)
        start = virtual.elapsed

        def answer(*, busy: bool) -> float:
            if busy:
                raise Busy(20.0)
            return virtual.elapsed - start

        guarded = pipeline(answer)
        with pytest.raises(Busy):
            guarded(busy=True)

        assert guarded(busy=False) == 20.0


@each_loop
def test_without_a_deadline_all_wait_also_for_the_longest_pause(run: Run) -> None:
    """Also those that come in the instant of the hint, or before it ends, and go last."""
    went = 0

    async def main() -> None:
        pipeline = Pipeline(paused(500.0, longest=60.0))

        async def work() -> None:
            nonlocal went
            went += 1

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(pipeline.acall, work)
                await anyio.sleep(0 if number < 50 else 1)

    run(main)

    assert went == 100
