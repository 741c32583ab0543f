"""Ambient time and randomness: the one place where the library reads a clock, sleeps or draws a random number.

Everything asks `ambient` at the moment of need, so a test or a simulation that swaps its parts (see
`resilience.testing`) changes the time of every pipeline there is, also of those made at import.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

FOREVER = float("inf")
TIMED_OUT = object()
"""What comes in the place of a value that was not there in time."""
ambient_deadline: ContextVar[float] = ContextVar("resilience_deadline", default=FOREVER)
"""The ambient deadline: until when whoever called us wants an answer, on the ambient clock."""


class TimerHandle(Protocol):
    """A callback that will be called later, unless cancelled."""

    def cancel(self) -> object:
        """Do not call back."""


class Clock(Protocol):
    """A source of time. All times are seconds on a clock that never goes backwards."""

    def monotonic(self) -> float:
        """Return the time now."""
        ...

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait `seconds`, or less if somebody releases `lock`; return True in that case."""
        ...

    def sleeping(self, seconds: float) -> None:
        """Hear that a task of an event loop is about to sleep; `alarm` follows."""

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait at most `seconds` for somebody to release `lock`; return whether that happened."""
        ...

    def alarm(self, at: float, callback: Callable[[], object]) -> TimerHandle | None:
        """Arrange for `callback` in the running event loop at time `at`; None: the loop's own timers will do."""


class SystemClock:
    """The machine's monotonic clock (PEP 418): no jumps, no daylight saving, no leap seconds."""

    monotonic = staticmethod(time.monotonic)

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait on the lock, so that a drain can end a sleep early and Ctrl-C is heard at once."""
        return _acquire(lock, seconds)

    def sleeping(self, seconds: float) -> None:
        """Take no notice."""

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait on the lock."""
        return _acquire(lock, seconds)

    def alarm(self, at: float, callback: Callable[[], object]) -> TimerHandle | None:
        """Leave it to the event loop."""
        del at, callback
        return None


def _acquire(lock: threading.Lock, seconds: float) -> bool:
    if seconds == FOREVER:
        return lock.acquire()
    return lock.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))


class ProcessClock:
    """What the whole process uses as time and as chance.

    `monotonic` and the other parts of `Time` are bound here one by one: the success path reads the clock, and one
    attribute less to look up is worth it.
    """

    __slots__ = ("alarm", "monotonic", "park", "random", "real", "sleep", "sleeping", "time")

    def __init__(self) -> None:
        self.random = random.Random()
        self.use(SystemClock())

    def use(self, source: Clock) -> None:
        """Take time from `source` from now on."""
        self.time = source
        self.real = isinstance(source, SystemClock)
        self.monotonic: Callable[[], float] = source.monotonic
        self.sleep: Callable[[threading.Lock, float], bool] = source.sleep
        self.sleeping: Callable[[float], None] = source.sleeping
        self.park: Callable[[threading.Lock, float], bool] = source.park
        self.alarm: Callable[[float, Callable[[], object]], TimerHandle | None] = source.alarm


clock = ProcessClock()


def _reseed_in_child() -> None:
    """Let forked children draw different numbers: equal jitter in many workers is no jitter."""
    clock.random.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed_in_child)
