"""Waking those who wait: too late, by a signal handler, and between two tasks of an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import Bulkhead, Pipeline, _runtime
from resilience._util.clock import clock
from tests.support.loops import LOOPS
from tests.support.turnstile import Turnstile


@pytest.mark.parametrize("run", LOOPS)
def test_a_wake_that_comes_after_all_disturbs_nobody(run: Callable[[Callable[[], Any]], Any]) -> None:
    class Served:
        """Granted while it was being parked: nothing to wait for, and yet whoever grants it will wake it."""

        def add_waker(self, wake: Callable[[], object]) -> bool:
            thread = threading.Thread(target=wake)
            thread.start()
            thread.join()
            return False

    async def main() -> int:
        rounds = 0
        for _ in range(10):
            await _runtime.park(Served(), clock.monotonic() + 60)
            await anyio.lowlevel.checkpoint()
            rounds += 1
        return rounds

    assert run(main) == 10


async def fine() -> str:
    return "fine"


async def unaided(loop: asyncio.AbstractEventLoop, pipeline: Pipeline[Any]) -> str:
    """Make a call that waits. A timer wakes a loop that sleeps on; then it was not the permit that did."""
    watchdog = loop.call_later(3, list)
    result: str = await pipeline.acall(fine)
    assert loop.time() < watchdog.when(), "the loop slept on"
    watchdog.cancel()
    return result


class BeforePolling(trio.abc.Instrument):
    """Does something once between two tasks, when trio is about to sleep."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.results: list[Any] = []

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0 and not self.results:
            self.results.append(self.action())


@pytest.mark.slow
def test_a_permit_that_a_signal_handler_gives_back_wakes_the_loop() -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=600)
    pipeline: Pipeline[Any] = Pipeline(bulkhead)

    async def main() -> str:
        bulkhead.__enter__()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return await unaided(asyncio.get_running_loop(), pipeline)

    before = signal.signal(signal.SIGALRM, lambda number, frame: bulkhead.__exit__(None, None, None))
    try:
        assert asyncio.run(main()) == "fine"
    finally:
        signal.signal(signal.SIGALRM, before)


class TestBetweenTwoTasksOfTrio:
    def test_nobody_is_in_a_task(self) -> None:
        between = BeforePolling(lambda: (_runtime.in_a_task(), _runtime.current_owner()))

        async def main() -> bool:
            with trio.move_on_after(0.001):
                await trio.sleep_forever()
            return _runtime.in_a_task()

        assert trio.run(main, instruments=[between])
        assert between.results == [(False, threading.get_ident())]

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


def test_ctrl_c_while_parked_gives_the_place_back() -> None:
    gate = Turnstile(patience=60.0)
    gate.take()
    pipeline: Pipeline[Any] = Pipeline(gate)

    def interrupt() -> None:
        while len(gate.line) == 0:
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(int)
    thread.join()

    assert len(gate.line) == 0
    assert gate.in_flight == 1
    assert pipeline.snapshot()["in_flight"] == 0
