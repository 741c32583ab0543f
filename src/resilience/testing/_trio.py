"""Virtual time under trio; imported only where trio is there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import trio
import trio.testing

from resilience._util.clock import TimerHandle


class JumpingClock(Protocol):
    """What is needed of a `VirtualClock`."""

    trio_alarms: list[float]
    rung: int

    def monotonic(self) -> float:
        """Return the virtual time now."""
        ...

    def jump(self, at: float) -> None:
        """Move the time on to a moment."""


class VirtualTrioClock(trio.abc.Clock):
    """A clock for `trio.run` that jumps to the next deadline when every task waits. For code without sockets."""

    def __init__(self, clock: JumpingClock) -> None:
        self._clock = clock

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Return the virtual time."""
        return self._clock.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Jump to the deadline. Trio asks only when no task can run, but one may be about to be woken."""
        if deadline == math.inf:
            return math.inf
        if trio.lowlevel.current_statistics().run_sync_soon_queue_size:
            return 0.0
        self._clock.jump(deadline)
        return 0.0


def alarm(clock: JumpingClock, at: float, callback: Callable[[], object]) -> TimerHandle | None:
    """Ring when every task of this run waits; None if the run is in virtual time as a whole."""
    if isinstance(trio.lowlevel.current_clock(), VirtualTrioClock):
        return None
    scope = trio.CancelScope()

    async def ring() -> None:
        with scope:
            while clock.monotonic() < at:
                rung = clock.rung
                await trio.testing.wait_all_tasks_blocked()
                if at <= min(waiting) and rung == clock.rung:  # else somebody else has just been woken
                    clock.rung += 1
                    clock.jump(at)
            callback()

    async def counted() -> None:
        try:
            await ring()
        finally:
            waiting.remove(at)

    waiting = clock.trio_alarms
    waiting.append(at)
    trio.lowlevel.spawn_system_task(counted)
    return scope
