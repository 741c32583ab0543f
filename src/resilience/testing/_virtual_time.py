"""Virtual time, seeded randomness, and the reset of all pipelines."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from resilience._pipeline.engine import engines
from resilience._runtime import in_trio
from resilience._util import log_once
from resilience._util.clock import FOREVER, Clock, TimerHandle, clock
from resilience.events._bus import forget_log_lines
from resilience.testing._asyncio import LoopAlarms, VirtualLoop, virtual_loop
from resilience.testing._to_thread import watch_threads
from resilience.testing._turns import GRACE, POLL, Job, JumpingClock

T = TypeVar("T")


class VirtualClock(JumpingClock):
    """A clock that advances only by sleeps and by `advance`. `virtual_time` makes one.

    A sleep in a thread advances it at once. In an event loop it advances to the next timer when every task waits; tasks
    keep their order. It stands still while a function works that was started by `asyncio.to_thread`,
    `loop.run_in_executor`, `anyio.to_thread`, `trio.to_thread`, or a `Timeout` with `thread=True`.

    Attributes:
        sleeps: the waits between attempts so far, in seconds each.
        patience: the real seconds, > 0, for which it stands still for a function on a thread, which may hang; 2 at
            first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop_alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopAlarms] = WeakKeyDictionary()
        self.sleeps: list[float] = []

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        """Advance by `seconds`, at once unless a thread works; return True if `lock` has been released before."""
        self.sleeps.append(seconds)
        return self._wait(lock, seconds, 0.0)

    def sleeping(self, seconds: float) -> None:
        """Record a sleep in an event loop, in `sleeps`."""
        self.sleeps.append(round(seconds, 9))

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait for `lock`, then advance by `seconds`; return whether `lock` was released.

        A thread that is not known may release it: nothing must have changed for GRACE real seconds.
        """
        released = self._wait(lock, seconds, GRACE)
        if not released:
            for job in self.jobs_of(lock):
                self.finish(job)
        return released

    def _wait(self, lock: threading.Lock, seconds: float, grace: float) -> bool:
        with self.waiting(max(0.0, seconds)) as end:
            if end == FOREVER:
                return lock.acquire()
            if lock.acquire(blocking=False):
                return True
            while not self.take_turn(end, grace):
                if lock.acquire(timeout=POLL):
                    return True
        return lock.acquire(blocking=False)

    def alarm(self, at: float, callback: Callable[[], object]) -> TimerHandle | None:
        """Call `callback` in the running event loop at `at`; return None if its own timers are virtual."""
        if in_trio():
            from resilience.testing import _trio

            return _trio.alarm(self, at, callback)
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            return None
        if loop not in self._loop_alarms:
            self._loop_alarms[loop] = LoopAlarms(self, loop)
        return self._loop_alarms[loop].add(at, callback)

    def on_thread(self, function: Callable[[], object], done: threading.Lock | None = None) -> Callable[[], object]:
        """Return a function that calls `function` on a thread of its own; no time passes while it works.

        Args:
            function: the function.
            done: a lock that it releases at its end, until which another thread may park; None without one.
        """
        job = self.add(Job(done))

        def run() -> None:
            job.begin()
            try:
                function()
            finally:
                self.finish(job)

        return run

    def trio(self) -> Any:
        """Return a clock for `trio.run(..., clock=...)`, with which `trio.sleep` takes no real time either."""
        from resilience.testing import _trio

        watch_threads(_watching[-1])  # trio may just have been imported
        return _trio.VirtualTrioClock(self)


@contextmanager
def virtual_time() -> Generator[VirtualClock]:
    """Replace the library's clock in a `with` block by a `VirtualClock`, which the block gets.

    It applies to all pipelines, also to existing ones, on threads, asyncio and trio. Waits of the library take no real
    time in any event loop. Loops that `asyncio.run`, or a Runner without a loop factory, makes in the block are
    completely virtual, so that `asyncio.sleep` takes no real time either. With trio, pass `clock.trio()` to `trio.run`
    as the clock. No time passes while a function works on a thread, see `VirtualClock`. Blocks may be nested or
    overlap: the newest active one applies.
    """
    virtual = VirtualClock()
    with (
        _active(_clocks, virtual, clock.use),
        _active(_loop_factories, virtual_loop, _make_loops_with),
        _active(_watching, True, watch_threads),
    ):
        yield virtual


_clocks: list[Clock] = [clock.time]
_sources: list[random.Random] = [clock.random]
_loop_factories: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.events.new_event_loop]
_watching: list[bool] = [False]


@contextmanager
def _active(stack: list[T], one: T, use: Callable[[T], object]) -> Generator[None]:
    """Use `one` while active; of several, the newest active one is used, in whatever order they end."""
    stack.append(one)
    use(one)
    try:
        yield
    finally:
        stack.remove(one)
        use(stack[-1])


def _make_loops_with(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Have `asyncio.run`, and every Runner without a loop factory, make loops with this one."""
    events: Any = asyncio.events
    events.new_event_loop = factory


@contextmanager
def seeded(seed: int | random.Random) -> Generator[random.Random]:
    """Make all randomness of the library, such as jitter, repeatable in a `with` block.

    Args:
        seed: the seed of a new `random.Random`, or one to use; the block gets the one in use.
    """
    source = seed if isinstance(seed, random.Random) else random.Random(seed)
    with _active(_sources, source, _draw_from):
        yield source


def _draw_from(source: random.Random) -> None:
    clock.random = source


def reset() -> None:
    """Reset all live pipelines: policies, budgets and drains; and let messages that were logged be logged again.

    These are the messages that are logged once, and the lines that `resilience.logs` has at most once in an interval.
    """
    for engine in engines():
        engine.reset()
    log_once.forget()
    forget_log_lines()
