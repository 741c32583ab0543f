"""The timer that an asyncio loop has for all deadlines under one limit."""

from __future__ import annotations

import asyncio
import gc
import weakref
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
        cuts = [Cut(task, timer, name) for name in ("first", "second", "third")]
        for cut in cuts:
            timer.add(cut, clock.monotonic())
        cuts[0].victim = cuts[1]
        timer.cancel_due(clock.monotonic() + 1)

    asyncio.run(main())

    assert fired == ["first", "third"]


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
