"""A testing kit: virtual time, seeded chance, recorded events.

    with virtual_time() as clock:
        quotes.call(flaky)            # retry waits take no time
    assert clock.elapsed < 10

Virtual time is for code without sockets: it jumps ahead whenever nothing can run.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import selectors
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from resilience._pipeline.engine import engines
from resilience._runtime import in_trio
from resilience._util import log_once, validation
from resilience._util.clock import FOREVER, Clock, TimerHandle, clock
from resilience.testing._recorder import Recorder

__all__ = ["Recorder", "VirtualClock", "VirtualLoop", "reset", "seeded", "virtual_loop", "virtual_time"]

T = TypeVar("T")
QUIET_ROUNDS = 5
"""Rounds in which an event loop has nothing to do before virtual time goes on."""
PATIENCE = 0.02
"""Real seconds that a thread in a queue waits for other threads, before virtual time goes on."""


class VirtualClock:
    """A clock that moves only when somebody sleeps, or by hand.

    Sleeps in threads advance it at once. In an event loop it jumps to the next due moment when every task waits;
    tasks keep their order. `sleeps` lists the sleeps between attempts, `elapsed` the seconds gone by in all.
    """

    def __init__(self) -> None:
        self._start = float(round(clock.monotonic()))
        self._elapsed = 0.0
        self._lock = threading.RLock()
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
        self.trio_alarms: list[float] = []
        self.rung = 0
        self.sleeps: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds of virtual time since the start."""
        return self._elapsed

    def monotonic(self) -> float:
        """Return the virtual time now."""
        return self._start + self._elapsed

    def advance(self, seconds: float) -> None:
        """Move the time on by hand.

        Raises:
            ValueError: `seconds` is negative or no finite number.
        """
        with self._lock:
            self._elapsed += validation.number("seconds", seconds)

    def jump(self, at: float) -> None:
        """Move the time on to a moment; one in the past changes nothing."""
        with self._lock:
            self._elapsed = max(self._elapsed, at - self._start)

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        """Sleep in no time."""
        self.sleeps.append(seconds)
        if lock.acquire(blocking=False):
            return True
        self.advance(max(0.0, seconds))
        return False

    def sleeping(self, seconds: float) -> None:
        """Note a sleep in an event loop."""
        self.sleeps.append(round(seconds, 9))

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        """Give other threads a moment, then let the time pass."""
        if seconds == FOREVER:
            return lock.acquire()
        if lock.acquire(timeout=PATIENCE):
            return True
        self.advance(max(0.0, seconds))
        return lock.acquire(blocking=False)

    def alarm(self, at: float, callback: Callable[[], object]) -> TimerHandle | None:
        """Arrange for a callback in the running event loop, if that loop has real timers."""
        if in_trio():
            from resilience.testing import _trio

            return _trio.alarm(self, at, callback)
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            return None
        if loop not in self._watches:
            self._watches[loop] = _Watch(self, loop)
        return self._watches[loop].add(at, callback)

    def trio(self) -> Any:
        """Make a clock for `trio.run(..., clock=...)`, so that `trio.sleep` takes no time either."""
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


class Heap:
    """The alarms of one event loop; the first is due when every task waits."""

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
        """Jump to the first alarm, and ring it; False when there was none."""
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
    """An asyncio event loop in virtual time: when no task can run, it jumps to the next timer.

    For code without sockets. Make it with `virtual_loop`.
    """

    def __init__(self) -> None:
        super().__init__(_JumpingSelector())

    def time(self) -> float:
        """Return the ambient time."""
        return clock.monotonic()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for threads as long as they take: virtual time runs past any timeout at once."""
        del timeout
        await super().shutdown_default_executor()


class _JumpingSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        """Look for I/O without waiting; if there is none, let the time until the next timer pass at once."""
        virtual = clock.time
        if timeout is None or timeout <= 0 or not isinstance(virtual, VirtualClock):
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            virtual.advance(timeout)
        return ready


def virtual_loop() -> VirtualLoop:
    """Make an asyncio loop that runs in virtual time inside `virtual_time()`.

    It is a loop factory, as `asyncio.Runner(loop_factory=...)` and anyio's backend option take one.
    """
    return VirtualLoop()


if sys.version_info < (3, 14):

    class _VirtualPolicy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return VirtualLoop()


class _Watch(Heap):
    """The alarms of an asyncio loop that has real timers: rung when the loop has nothing else to do."""

    def __init__(self, clock: VirtualClock, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(clock)
        self._loop = loop
        self._looking = False

    def add(self, at: float, callback: Callable[[], object]) -> _Alarm:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look, 0)
        return self.put(at, callback)

    def _look(self, quiet: int) -> None:
        if quiet >= QUIET_ROUNDS:
            quiet = 0
            self.fire()
        elif len(getattr(self._loop, "_ready", ())) == 0:
            quiet += 1
        else:
            quiet = 0
        self._looking = bool(self)
        if self._looking:
            self._loop.call_soon(self._look, quiet)


@contextmanager
def virtual_time() -> Generator[VirtualClock]:
    """Run what is inside in virtual time: threads, asyncio, trio, and pipelines that exist already.

    Waits of the library pass in no time in every event loop. Loops that `asyncio.run` makes inside are virtual as a
    whole (up to Python 3.13; later, use `virtual_loop` as the loop factory), so that `asyncio.sleep` takes no time
    either; for trio, give `trio.run` the clock that `clock.trio()` makes.
    """
    virtual = VirtualClock()
    with _in_force(_clocks, virtual, clock.use), _virtual_asyncio_run():
        yield virtual


_clocks: list[Clock] = [clock.time]
_chances: list[random.Random] = [clock.random]


@contextmanager
def _in_force(stack: list[T], one: T, use: Callable[[T], object]) -> Generator[None]:
    """Have the newest of those that are in force used, in whatever order they end."""
    stack.append(one)
    use(one)
    try:
        yield
    finally:
        stack.remove(one)
        use(stack[-1])


@contextmanager
def _virtual_asyncio_run() -> Generator[None]:
    if sys.version_info >= (3, 14):
        yield
    else:
        policies: Any = asyncio  # typed as deprecated for 3.14, where this does not run
        before = policies.get_event_loop_policy()
        policies.set_event_loop_policy(_VirtualPolicy())
        try:
            yield
        finally:
            policies.set_event_loop_policy(before)


@contextmanager
def seeded(seed: int | random.Random) -> Generator[random.Random]:
    """Make chance repeatable inside: all jitter comes from this seed, or from this `random.Random`."""
    chance = seed if isinstance(seed, random.Random) else random.Random(seed)
    with _in_force(_chances, chance, _draw_from):
        yield chance


def _draw_from(chance: random.Random) -> None:
    clock.random = chance


def reset() -> None:
    """Forget the state of all live pipelines: budgets, policies, drains, and what was said once."""
    for engine in engines():
        engine.reset()
    log_once.forget()
