"""The sliding windows of a circuit breaker: the calls of the last seconds, or the last N calls.

A window is guarded by the lock of its breaker, with one exception: a success in a `TimeWindow` is counted by
`next(window.count)` without the lock.
"""

from __future__ import annotations

import copy
import itertools
from collections import deque
from typing import NamedTuple

BUCKETS = 10
"""The number of buckets of a time window: it moves in steps of a tenth of its length."""


class Counts(NamedTuple):
    """The number of calls that count, of failures among them, and of slow calls, whether failed or not."""

    calls: int = 0
    failures: int = 0
    slow: int = 0

    @property
    def rate(self) -> float:
        """The share of failures, from 0 to 1; 0 where there were no calls."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_rate(self) -> float:
        """The share of slow calls, from 0 to 1; 0 where there were no calls."""
        return self.slow / self.calls if self.calls else 0.0


NONE = Counts()


class TimeWindow:
    """Counts the calls of the last seconds, in ten buckets: the current one and the nine before it.

    Args:
        span: the length in seconds.
        now: the time at which it begins, in seconds of the library's monotonic clock.

    To count a success, read the clock, call `rotate` with the lock held if the time is `bucket_end` or later, and then
    `next(count)`. An `itertools.count` counts under the GIL, so no success is lost and none waits. (This is not tested
    on free-threaded builds.)

    All counts grow without limit. `_marks` holds their values at the beginning of each bucket, so that the totals of
    the window are one subtraction.
    """

    __slots__ = (
        "_bucket",
        "_consecutive_at",
        "_failures",
        "_marks",
        "_reads",
        "_slow",
        "_start",
        "bucket_end",
        "consecutive",
        "count",
        "span",
    )  # fmt: skip

    def __init__(self, span: float, now: float) -> None:
        self.span = span
        self.count = itertools.count()
        self._reads = 0
        self._failures = 0
        self._slow = 0
        self.consecutive = 0
        """The number of consecutive failures, of whatever age, as of the last call counted by `add`."""
        self._consecutive_at = 0
        self._marks = [(0, 0, 0)]
        self._begin(now)

    def copy(self) -> TimeWindow:
        """Return a window with the same counts, which calls counted by this one do not affect."""
        other = copy.copy(self)
        successes = self._successes()
        other.count = itertools.count(successes)
        other._reads = 0
        other._marks = list(self._marks)
        return other

    def _begin(self, now: float) -> None:
        """Begin the first bucket."""
        self._start = now
        self._bucket = 0
        self.bucket_end = now + self.span / BUCKETS

    def rotate(self, now: float) -> None:
        """Begin the bucket of the time `now`, and drop buckets that are too old. Lock held.

        A time before the current bucket comes from a thread that had to wait for the lock; it changes nothing. If it is
        before the whole window, the clock was replaced, and the window starts empty, since the ages of the counted
        calls are unknown.
        """
        bucket = (now - self._start) * BUCKETS // self.span
        steps = bucket - self._bucket
        if 0 < steps < BUCKETS:
            total = self._total()
            self._marks += [total] * int(steps)
            del self._marks[:-BUCKETS]
            self._bucket = int(bucket)
            self.bucket_end = self._start + (self._bucket + 1) * self.span / BUCKETS
        elif steps and not -BUCKETS <= steps < 0:
            self._marks = [self._total()]
            self._begin(now)

    def add(self, now: float, failed: bool, slow: bool) -> tuple[int, int, int]:
        """Count a call and return the new totals: calls, failures, slow calls. Lock held."""
        if not self.bucket_end - self.span <= now < self.bucket_end:
            self.rotate(now)
        self._slow += slow
        if failed:
            self._failures += 1
        else:
            next(self.count)
        self._reads += 1  # `_successes` inlined
        successes = next(self.count) + 1 - self._reads
        if failed:
            # A success takes no lock, so it cannot reset `consecutive`; the counter shows whether there was one.
            self.consecutive = self.consecutive + 1 if successes == self._consecutive_at else 1
            self._consecutive_at = successes
        else:
            self.consecutive = 0
        calls, failures, slow_before = self._marks[0]
        return successes + self._failures - calls, self._failures - failures, self._slow - slow_before

    def counts(self, now: float) -> Counts:
        """Return the counts of the window at the time `now`. Lock held."""
        self.rotate(now)
        return Counts(*self.totals())

    def totals(self) -> tuple[int, int, int]:
        """Return calls, failures and slow calls as of the last `add` or `rotate`. Lock held."""
        calls, failures, slow = self._marks[0]
        return self._successes() + self._failures - calls, self._failures - failures, self._slow - slow

    def _successes(self) -> int:
        """Return the number of successes. Reading the counter advances it, so the number of reads is subtracted."""
        self._reads += 1
        return next(self.count) + 1 - self._reads

    def _total(self) -> tuple[int, int, int]:
        """Return calls, failures and slow calls since the window was made."""
        return self._successes() + self._failures, self._failures, self._slow


class CallWindow:
    """Counts the last `span` calls, always with the lock held.

    Args:
        span: the number of calls, >= 1.
    """

    __slots__ = ("_failures", "_outcomes", "_slow", "consecutive", "span")

    def __init__(self, span: int) -> None:
        self.span = span
        self._outcomes: deque[int] = deque(maxlen=span)
        self._failures = 0
        self._slow = 0
        self.consecutive = 0
        """The number of consecutive failures, as of the last call counted."""

    def copy(self) -> CallWindow:
        """Return a window with the same counts."""
        other = copy.copy(self)
        other._outcomes = self._outcomes.copy()
        return other

    def add(self, now: float, failed: bool, slow: bool) -> tuple[int, int, int]:
        """Count a call and return the new totals: calls, failures, slow calls. Lock held."""
        del now
        if len(self._outcomes) == self.span:
            oldest = self._outcomes[0]
            self._failures -= oldest & 1
            self._slow -= oldest >> 1
        self._outcomes.append(failed | slow << 1)
        self._failures += failed
        self._slow += slow
        self.consecutive = self.consecutive + 1 if failed else 0
        return len(self._outcomes), self._failures, self._slow

    def counts(self, now: float) -> Counts:
        """Return the counts of the window. Lock held."""
        del now
        return Counts(*self.totals())

    def totals(self) -> tuple[int, int, int]:
        """Return calls, failures and slow calls. Lock held."""
        return len(self._outcomes), self._failures, self._slow
