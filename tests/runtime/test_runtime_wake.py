"""Waking those who wait in an event loop: too late, and by a signal handler."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import Bulkhead, Pipeline, _runtime
from resilience._util.clock import clock
from tests.support.functions import fine
from tests.support.loops import LOOPS


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


async def unaided(loop: asyncio.AbstractEventLoop, pipeline: Pipeline[Any]) -> str:
    """Make a call that waits. A timer wakes a loop that sleeps on; then it was not the permit that did."""
    watchdog = loop.call_later(3, list)
    result: str = await pipeline.acall(fine)
    assert loop.time() < watchdog.when(), "the loop slept on"
    watchdog.cancel()
    return result


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


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_task_that_is_started_from_elsewhere_runs_and_what_it_raises_is_ignored(backend: str) -> None:
    ran: list[str] = []

    async def work() -> None:
        ran.append(backend)
        raise ConnectionError

    async def main() -> None:
        start = _runtime.task_starter()
        starters.append(start)
        thread = threading.Thread(target=start, args=(work,))
        thread.start()
        thread.join()
        while not ran:
            await anyio.lowlevel.checkpoint()

    starters: list[Any] = []
    anyio.run(main, backend=backend)
    starters[0](work)  # its loop has ended

    assert ran == [backend]
