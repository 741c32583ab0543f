"""The timer that an asyncio loop has for all deadlines under one limit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout, deadline_after
from resilience._call.ambient import Ambient
from resilience._call.running_call import INHERITED
from resilience._runtime import asyncio_timer
from resilience._util.clock import clock
from resilience.testing import VirtualClock


def test_timers_keep_no_loop_alive() -> None:
    pipeline = Pipeline(Timeout(60))

    async def fine() -> str:
        return "fine"

    loop = asyncio.new_event_loop()
    alive = weakref.ref(loop)
    assert loop.run_until_complete(pipeline.acall(fine)) == "fine"
    loop.close()
    del loop
    gc.collect()

    assert alive() is None


@pytest.mark.slow
def test_timers_do_not_pile_up() -> None:
    pipeline = Pipeline(Retry(1))

    async def main() -> int:
        loop: Any = asyncio.get_running_loop()
        most = 0

        async def patient() -> None:
            for _ in range(20):
                with deadline_after(5.0):
                    await pipeline.acall(asyncio.sleep, 0.02)

        async def hasty() -> None:
            nonlocal most
            for _ in range(40):
                with deadline_after(0.002), pytest.raises(DeadlineExceededError):
                    await pipeline.acall(asyncio.sleep, 1)
                armed = [handle for handle in loop._scheduled if not handle.cancelled() and "_ring" in repr(handle)]
                most = max(most, len(armed))

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(patient())
            group.create_task(hasty())
        return most

    assert asyncio.run(main()) <= 2


def test_an_alarm_that_cannot_be_referred_to_weakly_is_held() -> None:
    class Slotted:
        __slots__ = ()

        def cancel(self) -> None: ...

    alarm = Slotted()

    assert asyncio_timer._weakly(alarm)() is alarm


def test_a_cut_that_is_gone_by_the_time_it_is_due_does_not_keep_the_others() -> None:
    fired: list[str] = []

    class Cut(asyncio_timer.DeadlineCancel):
        def __init__(self, task: asyncio.Task[Any], timer: asyncio_timer.DeadlineTimer, name: str) -> None:
            super().__init__(task, Ambient.make(0.0, None))
            self.timer = timer
            self.name = name
            self.victim: Cut | None = None

        def fire(self) -> bool:
            fired.append(self.name)
            if self.victim is not None:
                self.timer.discard(self.victim)
            return True

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio_timer.timer_of(INHERITED, asyncio.get_running_loop())
        now = clock.monotonic()
        cuts = [Cut(task, timer, name) for name in ("first", "second", "third")]
        for cut in cuts:
            timer.add(cut, now)
        cuts[2].victim = cuts[1]
        timer._cancel_due(now, timer)
        timer._cancel_due(now + 1, timer)

    asyncio.run(main())

    assert fired == ["third", "first"]


@pytest.mark.parametrize(("seconds", "opens", "until"), [(0.01, 1, 0.52), (100.0, 0, 0.56)])
def test_an_inner_call_has_some_time_to_end_before_the_one_around_it_is_cancelled(
    virtual_clock: VirtualClock, seconds: float, opens: int, until: float
) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    inner, outer = Pipeline[Any](breaker, Timeout(0.6)), Pipeline[Any](Timeout(0.5))

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(200.0)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
            raise

    with pytest.raises(DeadlineExceededError):
        asyncio.run(outer.acall(inner.acall, slow_to_end))

    assert breaker.snapshot()["opens"] == opens
    assert 0.5 + min(seconds, 0.05) <= virtual_clock.elapsed < until


@pytest.mark.parametrize("times", [1, 2])
def test_of_calls_with_one_deadline_the_innermost_is_cancelled_and_all_count_it(
    virtual_clock: VirtualClock, times: int
) -> None:
    """Also where the innermost ones are in tasks of their own."""
    breakers = [CircuitBreaker(consecutive_failures=None) for _ in range(3)]
    inner, middle, outer = (Pipeline[Any](breaker, Timeout(0.3)) for breaker in breakers)
    cancelled: list[int] = []

    async def hang(number: int) -> None:
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async def calls() -> None:
        if times == 1:
            await inner.acall(hang, 0)
        else:
            await asyncio.gather(*(inner.acall(hang, number) for number in range(times)))

    async def main() -> int:
        with pytest.raises(DeadlineExceededError):
            await Pipeline[Any](Timeout(0.2)).acall(lambda: outer.acall(lambda: middle.acall(calls)))
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0
    assert [breaker.snapshot()["failures"] for breaker in breakers] == [times, 1, 1]
    assert sorted(cancelled) == list(range(times))
    assert virtual_clock.elapsed == pytest.approx(0.2, abs=0.01)


def test_a_call_that_does_not_end_delays_no_other_deadline(virtual_clock: VirtualClock) -> None:
    """It is cancelled at 0.5 s, and goes on; a call of another task is cut at its own deadline."""
    ended: list[float] = []

    async def goes_on() -> None:
        for _ in range(100):
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue

    async def stubborn() -> None:
        with contextlib.suppress(DeadlineExceededError):
            await Pipeline[Any](Timeout(0.5)).acall(Pipeline[Any](Timeout(9.0)).acall, goes_on)

    async def other() -> None:
        start = virtual_clock.elapsed
        for _ in range(10):
            with pytest.raises(DeadlineExceededError):
                await Pipeline[Any](Timeout(0.123)).acall(asyncio.sleep, 10.0)
        ended.append(virtual_clock.elapsed - start)

    async def main() -> None:
        await asyncio.gather(stubborn(), other())

    asyncio.run(main())

    assert ended == [pytest.approx(1.23, abs=0.001)]


def test_a_call_of_another_task_with_the_same_deadline_is_not_delayed(virtual_clock: VirtualClock) -> None:
    async def goes_on() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(100.0)
        await asyncio.sleep(1.0)

    async def cut(call: Callable[[], Awaitable[Any]]) -> float:
        with contextlib.suppress(DeadlineExceededError):
            await Pipeline[Any](Timeout(0.5)).acall(call)
        return virtual_clock.elapsed

    async def main() -> list[float]:
        inner = Pipeline[Any](Timeout(9.0))
        return list(await asyncio.gather(cut(lambda: inner.acall(goes_on)), cut(lambda: asyncio.sleep(9.0))))

    assert asyncio.run(main())[1] == pytest.approx(0.5, abs=0.001)
