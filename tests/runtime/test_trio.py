"""Waits and cuts in tasks of trio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
import trio
import trio.testing

from resilience import Bulkhead, CircuitBreaker, DeadlineExceededError, Pipeline, Timeout, _runtime
from resilience._runtime import trio as on_trio
from resilience._util.clock import FOREVER, TIMED_OUT, clock
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import fine, hang
from tests.support.loops import on_trio as run_in_virtual_time
from tests.support.threads import PATIENCE


class BeforePolling(trio.abc.Instrument):
    """Does something once between two tasks, when trio is about to sleep."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.results: list[Any] = []

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0 and not self.results:
            self.results.append(self.action())


class TestBetweenTwoTasksOfTrio:
    def test_nobody_is_in_a_task(self) -> None:
        between = BeforePolling(_runtime.in_a_task)

        async def main() -> bool:
            with trio.move_on_after(0.001):
                await trio.sleep_forever()
            return _runtime.in_a_task()

        assert trio.run(main, instruments=[between])
        assert between.results == [False]

    def test_a_generator_that_is_closed_there_gives_its_permit_back(self) -> None:
        bulkhead = Bulkhead(1)

        def guarded() -> Generator[None, None, None]:
            with bulkhead:
                yield

        async def main() -> None:
            generator = guarded()
            next(generator)
            between.action = generator.close
            with trio.move_on_after(0.001):
                await trio.sleep_forever()

        between = BeforePolling(list)
        trio.run(main, instruments=[between])

        assert between.results == [None]
        assert bulkhead.in_flight == 0

    def test_a_permit_that_is_given_back_there_wakes_a_task(self) -> None:
        bulkhead = Bulkhead(1, queue=1, max_wait=600)
        pipeline: Pipeline[Any] = Pipeline(bulkhead)

        async def main() -> str:
            bulkhead.__enter__()
            between.action = lambda: bulkhead.__exit__(None, None, None)
            with trio.fail_after(5):
                return await pipeline.acall(fine)

        between = BeforePolling(list)
        assert trio.run(main, instruments=[between]) == "fine"
        assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


def test_no_deadline_at_all_under_trio_leaves_virtual_time_alone() -> None:
    async def main() -> None:
        await Pipeline(Timeout(None, share=0.5)).acall(trio.lowlevel.checkpoint)

    with virtual_time() as clock:
        trio.run(main)

    assert clock.elapsed == 0


class Waiter:
    """Something to wait for, which is served after a while, or never, or has been served already."""

    def __init__(self, *, over: bool = False, in_thread: bool = False) -> None:
        self.over = over
        self.in_thread = in_thread
        self.wake: Callable[[], object] = list

    def add_waker(self, wake: Callable[[], object]) -> bool:
        self.wake = wake
        if self.in_thread:
            threading.Thread(target=wake).start()
        return not self.over


class TestParking:
    def test_another_thread_wakes_the_task(self) -> None:
        async def main() -> None:
            with trio.fail_after(PATIENCE):
                await on_trio.park(Waiter(in_thread=True), FOREVER)

        trio.run(main)

    def test_until_a_point_in_time(self) -> None:
        async def main() -> float:
            start = clock.monotonic()
            await on_trio.park(Waiter(), start + 7)
            return clock.monotonic() - start

        assert run_in_virtual_time(main) == pytest.approx(7)

    def test_for_nothing(self) -> None:
        async def main() -> float:
            start = clock.monotonic()
            await on_trio.park(Waiter(over=True), start + 7)
            return clock.monotonic() - start

        assert run_in_virtual_time(main) == 0

    def test_a_wake_after_cancellation_disturbs_nobody(self) -> None:
        waiter = Waiter()

        async def main() -> str:
            with trio.move_on_after(1) as scope:
                await on_trio.park(waiter, FOREVER)
            assert scope.cancelled_caught
            waiter.wake()
            await trio.sleep(1)
            return "undisturbed"

        assert run_in_virtual_time(main) == "undisturbed"

    def test_the_alarm_of_a_wait_that_ends_early_is_cancelled(self, virtual_clock: VirtualClock) -> None:
        async def main() -> None:
            await on_trio.park(Waiter(in_thread=True), clock.monotonic() + 1e6)
            await trio.testing.wait_all_tasks_blocked()
            assert virtual_clock.trio_alarms == []

        trio.run(main)  # a run in real time, where our own waits only are virtual


each_time = pytest.mark.parametrize("whole", [True, False], ids=["all virtual", "only our own waits"])


def run(main: Callable[[], Any], virtual: VirtualClock, *, whole: bool) -> Any:
    return trio.run(main, clock=virtual.trio() if whole else None)


class TestAwaitingUntil:
    @each_time
    def test_in_time(self, virtual_clock: VirtualClock, whole: bool) -> None:
        async def main() -> Any:
            return await on_trio.await_until(clock.monotonic() + 5, fine())

        assert run(main, virtual_clock, whole=whole) == "fine"
        assert virtual_clock.trio_alarms == []

    @each_time
    def test_too_late(self, virtual_clock: VirtualClock, whole: bool) -> None:
        async def main() -> Any:
            return await on_trio.await_until(clock.monotonic() + 5, hang())

        assert run(main, virtual_clock, whole=whole) is TIMED_OUT
        assert virtual_clock.elapsed == pytest.approx(5)

    def test_what_it_raises_comes_out(self, virtual_clock: VirtualClock) -> None:
        async def fail() -> None:
            raise KeyError

        async def main() -> Any:
            return await on_trio.await_until(clock.monotonic() + 5, fail())

        with pytest.raises(KeyError):
            run(main, virtual_clock, whole=True)


class TestWhereaboutsOfTrio:
    def test_the_deadline_of_the_scopes_is_on_our_clock(self) -> None:
        async def main() -> None:
            assert on_trio.effective_deadline() == FOREVER
            with trio.move_on_after(3):
                assert on_trio.effective_deadline() == pytest.approx(clock.monotonic() + 3)
                await trio.lowlevel.checkpoint()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    assert on_trio.effective_deadline() == -FOREVER
                    await trio.lowlevel.checkpoint()

        run_in_virtual_time(main)


class TestANurseryWithinADeadlineFromOutside:
    """A nursery raises a cancellation as a group in some versions: it is a cancellation all the same."""

    @pytest.mark.parametrize("around", [Timeout(0.08), None])
    @pytest.mark.parametrize("children", [0, 1, 3])
    def test_a_hang_in_it_is_a_timeout(self, around: Timeout | None, children: int) -> None:
        breaker = CircuitBreaker(consecutive_failures=1)
        inner = Pipeline(breaker, Timeout(0.1))

        async def hangs() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(children):
                    nursery.start_soon(trio.sleep, 60)
                await trio.sleep(60)

        async def main() -> None:
            outer = Pipeline(Timeout(0.2) if around is None else around)
            with pytest.raises(DeadlineExceededError):
                await outer.acall(inner.acall, hangs)

        run_in_virtual_time(main)

        assert breaker.snapshot()["opens"] == 1

    def test_a_probe_that_hangs_so_opens_it_again(self) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, open_for=0.1)
        inner = Pipeline(breaker, Timeout(0.1))

        async def hangs() -> None:
            async with trio.open_nursery():
                await trio.sleep(60)

        async def main() -> None:
            for _ in range(2):
                with pytest.raises(DeadlineExceededError):
                    await Pipeline(Timeout(0.08)).acall(inner.acall, hangs)
                await trio.sleep(0.2)

        run_in_virtual_time(main)

        assert breaker.snapshot()["opens"] == 2

    def test_a_cancellation_from_outside_stays_one(self) -> None:
        breaker = CircuitBreaker(consecutive_failures=1)

        async def hangs() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 60)
                await trio.sleep(60)

        async def main() -> None:
            with trio.move_on_after(0.05) as scope:
                await Pipeline(breaker, Timeout(0.1)).acall(hangs)
            assert scope.cancelled_caught

        run_in_virtual_time(main)

        assert breaker.snapshot()["calls"] == 0

    def test_a_group_of_cancellations_alone_and_of_errors_is_told_from_others(self) -> None:
        cancelled: list[BaseException] = []

        async def main() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.lowlevel.checkpoint()
                except trio.Cancelled as error:
                    cancelled.append(error)
                    raise

        trio.run(main)

        assert on_trio.is_cancellation(cancelled[0])
        assert on_trio.is_cancellation(BaseExceptionGroup("", [cancelled[0], ValueError()]))
        assert not on_trio.is_cancellation(BaseExceptionGroup("", [cancelled[0], KeyboardInterrupt()]))
        assert not on_trio.is_cancellation(KeyboardInterrupt())
