"""Virtual time under trio; imported only if trio is installed."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio
import trio.testing

from resilience._util.clock import FOREVER, TimerHandle
from resilience.testing._turns import GRACE, POLL, Job, JumpingClock


class VirtualTrioClock(trio.abc.Clock, trio.abc.Instrument):
    """A clock for `trio.run` that advances to the next deadline when every task waits. For code without sockets."""

    def __init__(self, clock: JumpingClock) -> None:
        self._clock = clock
        self._job = Job()  # the current run

    def start_clock(self) -> None:
        """Consider the run, until `after_run`."""
        trio.lowlevel.add_instrument(self)
        self._job = self._clock.add(Job())
        self._job.begin()

    def current_time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._clock.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Advance to the deadline. Trio calls this only if no task can run; but a task may be about to be woken."""
        if deadline == math.inf:
            self._clock.enter(FOREVER)
            return math.inf
        if trio.lowlevel.current_statistics().run_sync_soon_queue_size:
            return 0.0
        if not self._clock.take_turn(self._clock.enter(deadline - self._clock.monotonic())):
            return POLL
        self._clock.leave()
        return 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """End the wait that `deadline_to_sleep_time` began."""
        self._clock.leave()

    def after_run(self) -> None:
        """End the run."""
        self._clock.leave()
        self._clock.finish(self._job)


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
                await trio.testing.wait_all_tasks_blocked(GRACE if clock.running() else 0.0)
                jobs = clock.running()
                # Not while a thread works, nor if another alarm is due first, or has just fired.
                if not clock.is_held_up(jobs) and at <= min(waiting) and fired_count == clock.fired_count:
                    clock.fired_count += 1
                    clock.jump(at)
                    clock.warn_of(jobs)
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
