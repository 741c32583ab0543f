"""The process-wide clock and random source: the library reads the time, sleeps and draws random numbers here only.

All code accesses them through `clock` each time. So when a test or a simulation replaces the source (see
`resilience.testing`), the time changes for all pipelines, including pipelines that were created at import.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

FOREVER = float("inf")
TIMED_OUT = object()
"""Returned in place of a value that was not available in time."""


class TimerHandle(Protocol):
    """A scheduled callback."""

    def cancel(self) -> object:
        """Cancel the callback."""


class Clock(Protocol):
    """A source of time. All times are in seconds on a clock that never goes backwards."""

    def monotonic(self) -> float:
        """Return the current time."""
        ...

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        """Sleep in a thread between two attempts; return True if `lock` was released before that, which ends it."""
        ...

    def sleeping(self, seconds: float) -> None:
        """Called before a task sleeps between two attempts, for so many seconds; a call of `alarm` follows."""

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait in a thread, at most for so many seconds, until `lock` is released; return whether it was."""
        ...

    def alarm(self, at: float, callback: Callable[[], object]) -> TimerHandle | None:
        """Schedule `callback` in the running event loop at time `at`; None: the caller uses the loop's own timers."""

    def on_thread(self, function: Callable[[], object], done: threading.Lock | None = None) -> Callable[[], object]:
        """Return what to run on a new thread in place of `function`; if it is given, `done` is released at its end."""
        ...


class SystemClock:
    """The system's monotonic clock (PEP 418), which changes of the system time do not affect."""

    monotonic = staticmethod(time.monotonic)

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait for the lock, so that a drain can end the sleep and Ctrl-C interrupts it."""
        return _acquire(lock, seconds)

    def sleeping(self, seconds: float) -> None:
        """Do nothing."""

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        """Wait for the lock."""
        return _acquire(lock, seconds)

    def alarm(self, at: float, callback: Callable[[], object]) -> TimerHandle | None:
        """Return None: event loops have timers for this clock."""
        del at, callback
        return None

    def on_thread(self, function: Callable[[], object], done: threading.Lock | None = None) -> Callable[[], object]:
        """Return `function`."""
        del done
        return function


def _acquire(lock: threading.Lock, seconds: float) -> bool:
    if seconds == FOREVER:
        return lock.acquire()
    return lock.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))


class ProcessClock:
    """The clock and the random source of the process.

    Attributes:
        time: the source of time in use.
        real: whether that is the system's clock.
        random: the random source.

    The methods of the source are bound one by one, which saves the success path an attribute lookup.
    """

    __slots__ = ("alarm", "monotonic", "park", "random", "real", "sleep", "sleeping", "time")

    def __init__(self) -> None:
        self.random = random.Random()
        self.use(SystemClock())

    def use(self, source: Clock) -> None:
        """Use another source of time from now on."""
        self.time = source
        self.real = isinstance(source, SystemClock)
        self.monotonic: Callable[[], float] = source.monotonic
        self.sleep: Callable[[threading.Lock, float], bool] = source.sleep
        self.sleeping: Callable[[float], None] = source.sleeping
        self.park: Callable[[threading.Lock, float], bool] = source.park
        self.alarm: Callable[[float, Callable[[], object]], TimerHandle | None] = source.alarm


clock = ProcessClock()


def seeded(seed: int) -> Callable[[], float]:
    """Return a random source of its own, in [0, 1), which is the same in each run."""
    return random.Random(seed).random


def _reseed_in_child() -> None:
    """Reseed the random source in a forked child: the same jitter in many workers would not spread their retries."""
    clock.random.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed_in_child)
