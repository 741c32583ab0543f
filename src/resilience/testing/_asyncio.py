"""Virtual time under asyncio: loops that are completely virtual, and the library's timers on others."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
from collections.abc import Callable
from typing import Any, Final

from resilience._util.clock import FOREVER, clock
from resilience.testing._turns import GRACE, POLL, Job, JumpingClock

QUIET_ROUNDS = 5
"""Consecutive iterations of an event loop without a ready task before virtual time advances."""
TICK: Final = 1e-9
"""The resolution of timers, in seconds, as asyncio has it on most systems."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in virtual time: it advances to the next timer when no task can run.

    It is for code without sockets. `virtual_loop` makes one.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # asyncio runs a timer that is due within its resolution. On a machine that has run for half a year, times are
        # further apart than that, so that a timer which is due now would never be: virtual time does not move on.
        self._clock_resolution = max(TICK, 2 * math.ulp(clock.monotonic()))

    def time(self) -> float:
        """Return the time of the library's clock, in seconds."""
        return clock.monotonic()

    def run_forever(self) -> None:
        """Run until stopped."""
        job = self._jumping.job = Job()
        job.begin()
        try:
            super().run_forever()
        finally:
            job.over = True

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads without a timeout, which would end at once in virtual time."""
        del timeout
        await super().shutdown_default_executor()


class _JumpingSelector(selectors.DefaultSelector):
    job = Job()
    """The current run of the loop."""

    def select(self, timeout: float | None = None) -> Any:
        """Poll for I/O. If there is none, advance to the next timer, unless a thread works or another wait is first."""
        virtual = clock.time
        if not isinstance(virtual, JumpingClock):
            return super().select(timeout)
        virtual.add(self.job)
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        with virtual.waiting(FOREVER if timeout is None else timeout) as end:
            while not ready and not virtual.take_turn(end):
                ready = super().select(None if end == FOREVER else POLL)
        return ready


def virtual_loop() -> VirtualLoop:
    """Return a new asyncio event loop that runs in virtual time within `virtual_time()`.

    It is a loop factory for `asyncio.Runner(loop_factory=...)`, and for the backend option `loop_factory` of anyio.
    """
    return VirtualLoop()


class Alarm:
    """A callback at a point in virtual time."""

    def __init__(self, at: float, number: int, callback: Callable[[], object]) -> None:
        self.at = at
        self.number = number
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Cancel the callback."""
        self.cancelled = True

    def __lt__(self, other: Alarm) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class LoopAlarms:
    """The alarms of an asyncio loop with real timers: they fire when the loop has no ready task."""

    def __init__(self, clock: JumpingClock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop
        self._alarms: list[Alarm] = []
        self._numbers = itertools.count()
        self._scheduled = False

    def add(self, at: float, callback: Callable[[], object]) -> Alarm:
        """Add an alarm."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._poll, 0)
        alarm = Alarm(at, next(self._numbers), callback)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def _poll(self, quiet: int) -> None:
        jobs = self._clock.running()
        if quiet >= QUIET_ROUNDS and not self._clock.is_held_up(jobs):
            quiet = 0
            self._fire(jobs)
        elif len(getattr(self._loop, "_ready", ())) == 0:
            quiet += 1
        else:
            quiet = 0
        self._scheduled = any(not alarm.cancelled for alarm in self._alarms)
        if self._scheduled and jobs:
            self._loop.call_later(GRACE / QUIET_ROUNDS, self._poll, quiet)
        elif self._scheduled:
            self._loop.call_soon(self._poll, quiet)

    def _fire(self, jobs: list[Job]) -> None:
        """Advance to the first alarm, and fire it."""
        while self._alarms:
            alarm = heapq.heappop(self._alarms)
            if not alarm.cancelled:
                self._clock.jump(alarm.at)
                self._clock.warn_of(jobs)
                alarm.callback()
                return
