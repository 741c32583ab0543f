"""Virtual time, seeded randomness, and the reset of all pipelines."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import selectors
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from resilience._pipeline.engine import engines
from resilience._runtime import in_trio
from resilience._util import log_once, validation
from resilience._util.clock import FOREVER, Clock, TimerHandle, clock
from resilience.events._bus import forget_log_lines

T = TypeVar("T")
QUIET_ROUNDS = 5
"""Consecutive iterations of an event loop without a ready task before virtual time advances."""
PATIENCE = 0.02
"""Real seconds that a thread in a queue waits for other threads before virtual time advances."""


class VirtualClock:
    """A clock that advances only by sleeps and by `advance`. `virtual_time` makes one.

    A sleep in a thread advances it at once. In an event loop it advances to the next timer when every task waits; tasks
    keep their order.

    Attributes:
        sleeps: the waits between attempts so far, in seconds each.
    """

    def __init__(self) -> None:
        self._start = float(round(clock.monotonic()))
        self._elapsed = 0.0
        self._lock = threading.RLock()
        self._loop_alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopAlarms] = WeakKeyDictionary()
        self.trio_alarms: list[float] = []
        self.fired_count = 0
        self.sleeps: list[float] = []

    @property
    def elapsed(self) -> float:
        """The virtual seconds since the clock was made."""
        return self._elapsed

    def monotonic(self) -> float:
        """Return the current virtual time, in seconds."""
        return self._start + self._elapsed

    def advance(self, seconds: float) -> None:
        """Advance the time.

        Args:
            seconds: the seconds to advance, >= 0.

        Raises:
            TypeError, ValueError: `seconds` is not a finite number >= 0.
        """
        with self._lock:
            self._elapsed += validation.number("seconds", seconds)

    def jump(self, at: float) -> None:
        """Advance the time to `at`, in seconds as `monotonic` returns them; a time in the past has no effect."""
        with self._lock:
            self._elapsed = max(self._elapsed, at - self._start)

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        """Advance by `seconds` at once; return True without advancing if `lock` has been released."""
        self.sleeps.append(seconds)
        if lock.acquire(blocking=False):
            return True
        self.advance(max(0.0, seconds))
        return False

    def sleeping(self, seconds: float) -> None:
        """Record a sleep in an event loop, in `sleeps`."""
        self.sleeps.append(round(seconds, 9))

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait PATIENCE real seconds for `lock`, then advance by `seconds`; return whether `lock` was released."""
        if seconds == FOREVER:
            return lock.acquire()
        if lock.acquire(timeout=PATIENCE):
            return True
        self.advance(max(0.0, seconds))
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
            self._loop_alarms[loop] = _LoopAlarms(self, loop)
        return self._loop_alarms[loop].add(at, callback)

    def trio(self) -> Any:
        """Return a clock for `trio.run(..., clock=...)`, with which `trio.sleep` takes no real time either."""
        from resilience.testing import _trio

        return _trio.VirtualTrioClock(self)


class _Alarm:
    def __init__(self, at: float, number: int, callback: Callable[[], object]) -> None:
        self.at = at
        self.number = number
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __lt__(self, other: _Alarm) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class AlarmQueue:
    """The alarms of one event loop, ordered by time."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._alarms: list[_Alarm] = []
        self._numbers = itertools.count()

    def put(self, at: float, callback: Callable[[], object]) -> _Alarm:
        """Add an alarm."""
        alarm = _Alarm(at, next(self._numbers), callback)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def fire(self) -> bool:
        """Advance to the first alarm, and fire it; return False if there is none."""
        while self._alarms:
            alarm = heapq.heappop(self._alarms)
            if not alarm.cancelled:
                self.clock.jump(alarm.at)
                alarm.callback()
                return True
        return False

    def __bool__(self) -> bool:
        return any(not alarm.cancelled for alarm in self._alarms)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in virtual time: it advances to the next timer when no task can run.

    It is for code without sockets. `virtual_loop` makes one.
    """

    def __init__(self) -> None:
        super().__init__(_JumpingSelector())

    def time(self) -> float:
        """Return the time of the library's clock, in seconds."""
        return clock.monotonic()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads without a timeout, which would end at once in virtual time."""
        del timeout
        await super().shutdown_default_executor()


class _JumpingSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        """Poll for I/O without waiting; if there is none, advance the time to the next timer."""
        virtual = clock.time
        if timeout is None or timeout <= 0 or not isinstance(virtual, VirtualClock):
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            virtual.advance(timeout)
        return ready


def virtual_loop() -> VirtualLoop:
    """Return a new asyncio event loop that runs in virtual time within `virtual_time()`.

    It is a loop factory for `asyncio.Runner(loop_factory=...)`, and for the backend option `loop_factory` of anyio.
    """
    return VirtualLoop()


class _LoopAlarms(AlarmQueue):
    """The alarms of an asyncio loop with real timers: they fire when the loop has no ready task."""

    def __init__(self, clock: VirtualClock, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(clock)
        self._loop = loop
        self._scheduled = False

    def add(self, at: float, callback: Callable[[], object]) -> _Alarm:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._poll, 0)
        return self.put(at, callback)

    def _poll(self, quiet: int) -> None:
        if quiet >= QUIET_ROUNDS:
            quiet = 0
            self.fire()
        elif len(getattr(self._loop, "_ready", ())) == 0:
            quiet += 1
        else:
            quiet = 0
        self._scheduled = bool(self)
        if self._scheduled:
            self._loop.call_soon(self._poll, quiet)


@contextmanager
def virtual_time() -> Generator[VirtualClock]:
    """Replace the library's clock in a `with` block by a `VirtualClock`, which the block gets.

    It applies to all pipelines, also to existing ones, on threads, asyncio and trio. Waits of the library take no real
    time in any event loop. Loops that `asyncio.run`, or a Runner without a loop factory, makes in the block are
    completely virtual, so that `asyncio.sleep` takes no real time either. With trio, pass `clock.trio()` to `trio.run`
    as the clock. Blocks may be nested or overlap: the newest active one applies.
    """
    virtual = VirtualClock()
    with _active(_clocks, virtual, clock.use), _active(_loop_factories, virtual_loop, _make_loops_with):
        yield virtual


_clocks: list[Clock] = [clock.time]
_sources: list[random.Random] = [clock.random]
_loop_factories: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.events.new_event_loop]


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
