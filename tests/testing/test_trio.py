"""Virtual time in runs of trio: the clock that jumps, and alarms without it."""

from __future__ import annotations

import math
import threading

import pytest
import trio
import trio.testing

from resilience import Pipeline, Retry, backoff
from resilience.testing import VirtualClock, virtual_time
from resilience.testing._trio import VirtualTrioClock, alarm
from tests.support.functions import down
from tests.support.threads import PATIENCE


def test_trio_alarms_are_forgotten_with_their_run() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.fixed(5)))

    async def retried() -> None:
        await pipeline.acall(down)

    async def cancelled() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(retried)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await pipeline.acall(down)

    with virtual_time() as clock:
        for _ in range(5):
            trio.run(cancelled)
            assert clock.trio_alarms == []
        trio.run(main)


class TestClock:
    def test_it_jumps_from_one_deadline_to_the_next(self, virtual_clock: VirtualClock) -> None:
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await trio.sleep(seconds)
            woken.append((name, virtual_clock.elapsed))

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sleeper, "long", 3600)
                nursery.start_soon(sleeper, "short", 60)
                nursery.start_soon(sleeper, "none", 0)

        trio.run(main, clock=virtual_clock.trio())

        assert [name for name, _ in woken] == ["none", "short", "long"]
        assert [at for _, at in woken] == pytest.approx([0, 60, 3600])

    def test_its_time_is_that_of_the_library(self, virtual_clock: VirtualClock) -> None:
        async def main() -> None:
            assert trio.current_time() == virtual_clock.monotonic()
            virtual_clock.advance(7)
            assert trio.current_time() == virtual_clock.monotonic()

        trio.run(main, clock=virtual_clock.trio())

    def test_it_stands_still_while_another_thread_is_waited_for(self, virtual_clock: VirtualClock) -> None:
        async def main() -> None:
            done = trio.Event()
            token = trio.lowlevel.current_trio_token()
            threading.Thread(target=token.run_sync_soon, args=(done.set,)).start()
            await done.wait()

        trio.run(main, clock=virtual_clock.trio())

        assert virtual_clock.elapsed == 0

    def test_it_stands_still_where_somebody_is_about_to_be_woken(self, virtual_clock: VirtualClock) -> None:
        clock = VirtualTrioClock(virtual_clock)

        async def main() -> None:
            token = trio.lowlevel.current_trio_token()
            token.run_sync_soon(lambda: None)
            assert clock.deadline_to_sleep_time(clock.current_time() + 5) == 0
            assert virtual_clock.elapsed == 0
            await trio.testing.wait_all_tasks_blocked()
            assert clock.deadline_to_sleep_time(clock.current_time() + 5) == 0
            assert virtual_clock.elapsed == pytest.approx(5)

        trio.run(main)

    def test_no_deadline_is_waited_for_in_real_time(self, virtual_clock: VirtualClock) -> None:
        assert VirtualTrioClock(virtual_clock).deadline_to_sleep_time(math.inf) == math.inf


class TestAlarms:
    """Alarms are for runs that are in real time, but for the waits of the library."""

    def test_a_run_that_is_virtual_as_a_whole_needs_none(self, virtual_clock: VirtualClock) -> None:
        async def main() -> None:
            assert alarm(virtual_clock, virtual_clock.monotonic() + 1, list) is None

        trio.run(main, clock=virtual_clock.trio())

    def test_they_ring_in_the_order_of_their_times_when_every_task_waits(self, virtual_clock: VirtualClock) -> None:
        rung: list[tuple[str, float]] = []

        async def main() -> None:
            now = virtual_clock.monotonic()
            done = trio.Event()
            for name, seconds in (("last", 9.0), ("first", 2.0), ("second", 5.0)):

                def ring(name: str = name) -> None:
                    rung.append((name, virtual_clock.elapsed))
                    if name == "last":
                        done.set()

                assert alarm(virtual_clock, now + seconds, ring) is not None
            for _ in range(20):  # as long as a task is busy, no time passes
                await trio.lowlevel.checkpoint()
            assert (rung, virtual_clock.elapsed) == ([], 0)
            with trio.fail_after(PATIENCE):
                await done.wait()

        trio.run(main)

        assert [name for name, _ in rung] == ["first", "second", "last"]
        assert [at for _, at in rung] == pytest.approx([2, 5, 9])
        assert virtual_clock.trio_alarms == []

    def test_one_that_is_cancelled_does_not_ring(self, virtual_clock: VirtualClock) -> None:
        rung: list[str] = []

        async def main() -> None:
            now = virtual_clock.monotonic()
            done = trio.Event()
            cancelled = alarm(virtual_clock, now + 1, lambda: rung.append("cancelled"))
            assert alarm(virtual_clock, now + 2, done.set) is not None
            assert cancelled is not None
            cancelled.cancel()
            with trio.fail_after(PATIENCE):
                await done.wait()

        trio.run(main)

        assert rung == []
        assert virtual_clock.elapsed == pytest.approx(2)
