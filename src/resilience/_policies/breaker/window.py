"""What a circuit breaker counts: the calls of the last seconds, or the last so many calls.

Windows are guarded by the lock of whoever owns them, with one exception: in a `TimeWindow` a success is counted by
`next(window.count)`, without it.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import NamedTuple

BUCKETS = 10
"""A time window forgets in steps of a tenth of its length."""


class Counts(NamedTuple):
    """Calls with an outcome that counts; how many of them failed; how many, failed or not, were slow."""

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
    """Counts the calls of the last seconds, in ten buckets: the one that is being filled, and the nine before it.

    Args:
        span: the length in seconds.
        now: the time at which it begins.

    To count a success, read the clock, `turn` under the lock if it is `edge` or later, and then `next(count)`. A
    counter of `itertools` counts under the interpreter's own lock, so that no success is lost and none waits. (On a
    free-threaded build that is not tested.)

    All counts grow for ever; `_marks` holds what they were at the beginning of each bucket, so that what the window
    holds is one subtraction, whatever went through it.
    """

    __slots__ = (
        "_bucket",
        "_consecutive_at",
        "_failures",
        "_looks",
        "_marks",
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
        self._looks = 0
        self._failures = 0
        self._slow = 0
        self.consecutive = 0
        """Consecutive failures, however long ago they began, as of the last call that `add` has counted."""
        self._consecutive_at = 0
        self._marks = [(0, 0, 0)]
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._start = now
        self._bucket = 0
        self.bucket_end = now + self.span / BUCKETS

    def rotate(self, now: float) -> None:
        """Begin the bucket of this moment, and forget those that have become too old. Lock held.

        A moment that is a little earlier is that of a thread which had to wait for the lock: nothing to do. One
        that is earlier by a whole window is another clock, and what was counted has no age any more.
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
        """Count a call of any kind, and return what the window holds then, as `totals` does. Lock held."""
        if not self.bucket_end - self.span <= now < self.bucket_end:
            self.rotate(now)
        self._slow += slow
        if failed:
            self._failures += 1
        else:
            next(self.count)
        self._looks += 1  # as in `_successes`, without a call
        successes = next(self.count) + 1 - self._looks
        if failed:
            # A success takes no lock, so it cannot end the run of failures itself; the counter tells whether there was
            # one.
            self.consecutive = self.consecutive + 1 if successes == self._consecutive_at else 1
            self._consecutive_at = successes
        else:
            self.consecutive = 0
        calls, failures, slow_before = self._marks[0]
        return successes + self._failures - calls, self._failures - failures, self._slow - slow_before

    def counts(self, now: float) -> Counts:
        """Return what the window holds. Lock held."""
        self.rotate(now)
        return Counts(*self.totals())

    def totals(self) -> tuple[int, int, int]:
        """Return what it held after the last call of `add` or `turn`: calls, failures, slow calls. Lock held."""
        calls, failures, slow = self._marks[0]
        return self._successes() + self._failures - calls, self._failures - failures, self._slow - slow

    def _successes(self) -> int:
        """Return the successes so far. Looking at a counter draws a number from it, which is taken off again."""
        self._looks += 1
        return next(self.count) + 1 - self._looks

    def _total(self) -> tuple[int, int, int]:
        return self._successes() + self._failures, self._failures, self._slow


class CallWindow:
    """Counts the last so many calls; everything under the lock.

    Args:
        span: the number of calls.
        now: the time at which it begins, which makes no difference.
    """

    __slots__ = ("_failures", "_outcomes", "_slow", "consecutive", "span")

    def __init__(self, span: int, now: float = 0.0) -> None:
        del now
        self.span = span
        self._outcomes: deque[int] = deque(maxlen=span)
        self._failures = 0
        self._slow = 0
        self.consecutive = 0
        """The number of consecutive failures, up to the last call counted."""

    def add(self, now: float, failed: bool, slow: bool) -> tuple[int, int, int]:
        """Count a call of any kind, and return what the window holds then, as `totals` does. Lock held."""
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
        """Return what the window holds. Lock held."""
        del now
        return Counts(*self.totals())

    def totals(self) -> tuple[int, int, int]:
        """Return what it holds: calls, failures, slow calls. Lock held."""
        return len(self._outcomes), self._failures, self._slow
