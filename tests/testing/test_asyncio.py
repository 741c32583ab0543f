"""Loops of asyncio that are virtual, and the alarms of the others."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

from resilience._util.clock import clock
from resilience.testing import VirtualClock, VirtualLoop, virtual_loop, virtual_time
from resilience.testing._asyncio import Alarm, LoopAlarms
from tests.support.threads import PATIENCE


class TestVirtualLoop:
    def test_its_time_is_that_of_the_library(self, virtual_clock: VirtualClock) -> None:
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            assert loop.time() == clock.monotonic() == virtual_clock.monotonic()

    def test_it_is_what_asyncio_run_makes_in_virtual_time(self) -> None:
        async def which() -> type:
            return type(asyncio.get_running_loop())

        before = asyncio.run(which())
        with virtual_time():
            assert asyncio.run(which()) is VirtualLoop
            with asyncio.Runner() as runner:
                assert runner.run(which()) is VirtualLoop
        assert asyncio.run(which()) is before is not VirtualLoop

    @pytest.mark.parametrize("uptime", [1e7, 3e7, 3e8])
    def test_its_timers_ring_however_long_the_machine_has_run(self, virtual_clock: VirtualClock, uptime: float) -> None:
        """After half a year, times are further apart than the resolution of asyncio."""
        virtual_clock.advance(uptime)

        async def main() -> None:
            for seconds in (0.1, 0.3, 1e-3):
                await asyncio.sleep(seconds)

        turns = iter(range(10_000))
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            loop: Any = runner.get_loop()
            run_once = loop._run_once
            loop._run_once = lambda: (next(turns), run_once())  # a timer that never rings would turn the loop for ever
            runner.run(main())
        assert virtual_clock.elapsed == pytest.approx(uptime + 0.401)

    def test_it_advances_from_one_timer_to_the_next(self, virtual_clock: VirtualClock) -> None:
        woken: list[tuple[float, float]] = []

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((seconds, virtual_clock.elapsed))

        async def main() -> None:
            await asyncio.gather(*(sleep(seconds) for seconds in (3600.0, 60.0, 0.0)))

        asyncio.run(main())

        assert [seconds for seconds, _ in woken] == [0, 60, 3600]
        assert [at for _, at in woken] == pytest.approx([0, 60, 3600])

    def test_without_a_timer_it_waits_for_other_threads(self, virtual_clock: VirtualClock) -> None:
        async def main() -> str:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[str] = loop.create_future()
            threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, "called")).start()
            return await future

        assert asyncio.run(main()) == "called"
        assert virtual_clock.elapsed == 0

    def test_outside_of_virtual_time_it_waits_for_real(self) -> None:
        turns: list[float | None] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            selector: Any = vars(loop)["_selector"]
            select = selector.select

            def counted(timeout: float | None = None) -> Any:
                turns.append(timeout)
                return select(timeout)

            selector.select = counted
            waiter = loop.create_future()
            loop.call_later(0.05, waiter.set_result, None)
            await waiter

        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            runner.run(main())

        assert len(turns) < 20

    def test_a_loop_that_has_stopped_holds_nothing_up(self, virtual_clock: VirtualClock) -> None:
        virtual_clock.patience = PATIENCE
        runner = asyncio.Runner()

        def run() -> None:
            runner.run(asyncio.sleep(1.0))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(PATIENCE)
        asyncio.run(asyncio.sleep(1.0))

        assert virtual_clock.elapsed == pytest.approx(2)
        runner.close()


class TestAlarms:
    """Alarms are for loops that are in real time, but for the waits of the library."""

    def test_they_ring_in_the_order_of_their_times_when_no_task_can_run(self, virtual_clock: VirtualClock) -> None:
        rung: list[tuple[str, float]] = []

        async def main() -> None:
            loop, now = asyncio.get_running_loop(), virtual_clock.monotonic()
            alarms, done = LoopAlarms(virtual_clock, loop), loop.create_future()

            def ring(name: str) -> None:
                rung.append((name, virtual_clock.elapsed))
                if name == "last":
                    done.set_result(None)

            for name, seconds in (("last", 9.0), ("first", 2.0), ("second", 5.0), ("also second", 5.0)):
                alarms.add(now + seconds, partial(ring, name))
            for _ in range(20):  # as long as a task is busy, no time passes
                await asyncio.sleep(0)
            assert (rung, virtual_clock.elapsed) == ([], 0)
            await done

        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())

        assert rung == [("first", 2), ("second", 5), ("also second", 5), ("last", 9)]

    def test_one_that_is_cancelled_does_not_ring(self, virtual_clock: VirtualClock) -> None:
        rung: list[str] = []

        async def main() -> None:
            loop, now = asyncio.get_running_loop(), virtual_clock.monotonic()
            alarms, done = LoopAlarms(virtual_clock, loop), loop.create_future()
            cancelled: Alarm = alarms.add(now + 1, lambda: rung.append("cancelled"))
            alarms.add(now + 2, lambda: done.set_result(None))
            cancelled.cancel()
            await done

        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())

        assert rung == []
        assert virtual_clock.elapsed == pytest.approx(2)
