"""Virtual time under trio; imported only if trio is installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import trio
import trio.testing

from resilience._util.clock import TimerHandle


class JumpingClock(Protocol):
    """The part of `VirtualClock` that this module uses."""

    trio_alarms: list[float]
    fired_count: int

    def monotonic(self) -> float:
        """Return the virtual time now."""
        ...

    def jump(self, at: float) -> None:
        """Advance the time to `at`."""


class VirtualTrioClock(trio.abc.Clock):
    """A clock for `trio.run` that advances to the next deadline when every task waits. For code without sockets."""

    def __init__(self, clock: JumpingClock) -> None:
        self._clock = clock

    def start_clock(self) -> None:
        """Do nothing: the clock needs no start."""

    def current_time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._clock.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Advance to the deadline. Trio calls this only if no task can run; but a task may be about to be woken."""
        if deadline == math.inf:
            return math.inf
        if trio.lowlevel.current_statistics().run_sync_soon_queue_size:
            return 0.0
        self._clock.jump(deadline)
        return 0.0


def alarm(clock: JumpingClock, at: float, callback: Callable[[], object]) -> TimerHandle | None:
    """Call `callback` at the virtual time `at`, once every task of this run waits.

    Return None if the whole run is in virtual time, so that a deadline of trio does the same.
    """
    if isinstance(trio.lowlevel.current_clock(), VirtualTrioClock):
        return None
    scope = trio.CancelScope()

    async def fire() -> None:
        with scope:
            while clock.monotonic() < at:
                fired_count = clock.fired_count
                await trio.testing.wait_all_tasks_blocked()
                # Not if another alarm is due first, or has just fired.
                if at <= min(waiting) and fired_count == clock.fired_count:
                    clock.fired_count += 1
                    clock.jump(at)
            callback()

    async def counted() -> None:
        try:
            await fire()
        finally:
            waiting.remove(at)

    waiting = clock.trio_alarms
    waiting.append(at)
    trio.lowlevel.spawn_system_task(counted)
    return scope
