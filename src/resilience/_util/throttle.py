"""A throttle for log lines: of the events of one kind, one in each interval passes, and the others are counted."""

from __future__ import annotations

import itertools
from typing import ClassVar

from resilience._util.clock import clock
from resilience._util.locks import new_lock


class Throttle:
    """Lets one event in each interval pass, and counts those that it holds back; exact under threads.

    To save a call, the code that has an event holds it back itself, without a lock:

        until = throttle.until
        if until and throttle.since <= clock.monotonic() < until:
            next(throttle.held_back)

    A time before `since` means that the clock was set back, as at the end of virtual time, so the clock is read last.

    Attributes:
        interval: the seconds in which one event passes; 0 lets all pass. It is the same in the whole process.
        since: when the latest event passed, in seconds of the library's monotonic clock.
        until: when the next one may pass; 0 if none has passed yet.
        held_back: the counter of the events that were held back.
    """

    __slots__ = ("_reads", "_told", "held_back", "since", "until")
    interval: ClassVar[float] = 10.0

    def __init__(self) -> None:
        self.since = self.until = 0.0
        self.held_back = itertools.count()
        self._reads = 0  # reading a counter advances it
        self._told = 0

    def let_pass(self) -> int | None:
        """Let an event pass; return how many were held back before it, or None if it is held back, too.

        Of the threads that come here at once, one passes.
        """
        with _lock:
            now = clock.monotonic()
            if self.since <= now < self.until:
                next(self.held_back)
                return None
            self.since = now
            self.until = now + self.interval
            untold = self._untold()
            self._told += untold
            return untold

    def untold(self) -> int:
        """Return how many events were held back since one passed."""
        with _lock:
            return self._untold()

    def interval_changed(self) -> None:
        """Apply a new `interval` also to the latest event that passed."""
        with _lock:
            if self.until:
                self.until = self.since + self.interval

    def _untold(self) -> int:
        """Read the counter. Lock held. An event that is counted meanwhile is part of the next number."""
        held_back = next(self.held_back) - self._reads
        self._reads += 1
        return held_back - self._told


_lock = new_lock()
