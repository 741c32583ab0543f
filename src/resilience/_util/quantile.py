"""An online estimator of quantiles of durations: a histogram of logarithmic buckets over the last 30 to 60 seconds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from resilience._util.clock import clock
from resilience._util.finalizers import pending, run_pending
from resilience._util.locks import new_lock

WINDOW = 30.0
"""Seconds of one of the two windows: the one that is filled, and the one before it."""
FRESH = 100
"""The estimate is computed again after so many durations, or after a second."""
_GROWTH = math.log(1.02)
"""Each bucket is 2 % wider than the one below, so that an estimate is off by at most 1 %."""
_SHORTEST = 1e-9


class QuantileEstimator:
    """Estimates quantiles of durations, exact in their number under threads, and forgets what is older than a minute.

    Args:
        p: the quantile that `estimate` returns, in (0, 1).
    """

    __slots__ = ("_at", "_before", "_buckets", "_cached", "_count", "_fresh_until", "_lock", "_pending", "_seen", "p")

    def __init__(self, p: float) -> None:
        self.p = p
        self._lock = new_lock()
        # Durations are added without a lock, and sorted into buckets when an estimate is needed.
        self._pending: deque[float] = deque()
        self._buckets: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._count = 0
        self._at = clock.monotonic()
        self._cached: float | None = None
        self._seen = 0
        self._fresh_until = -math.inf

    def add(self, seconds: float) -> None:
        """Add a duration in seconds, >= 0."""
        self._pending.append(seconds)
        if len(self._pending) >= FRESH:
            self._refresh(clock.monotonic())

    def add_sorted(self, durations: Sequence[float]) -> None:
        """Add many durations in seconds, >= 0, in ascending order; that takes less time than adding each."""
        with self._lock:
            self._rotate(clock.monotonic())
            self._fresh_until = -math.inf
            buckets, begin = self._buckets, 0
            while begin < len(durations):
                bucket = _bucket_of(durations[begin])
                end = bisect_left(durations, math.exp((bucket + 1) * _GROWTH), begin + 1)
                buckets[bucket] = buckets.get(bucket, 0) + end - begin
                begin = end
        if pending:
            run_pending()

    def estimate(self, least: int = 1) -> float | None:
        """Return the quantile in seconds; None while fewer than `least` durations are known, or not one."""
        now = clock.monotonic()
        if now >= self._fresh_until or now < self._fresh_until - 1.0:
            self._refresh(now)
        return self._cached if self._seen >= least else None

    @property
    def count(self) -> int:
        """The number of durations that are known."""
        self._refresh(clock.monotonic())
        return self._seen

    def clear(self) -> None:
        """Forget all durations."""
        with self._lock:
            self._pending.clear()
            self._buckets, self._before = {}, {}
            self._cached, self._seen, self._fresh_until = None, 0, -math.inf
        if pending:
            run_pending()

    def _refresh(self, now: float) -> None:
        with self._lock:
            self._rotate(now)
            buckets = self._buckets
            try:
                while True:
                    bucket = _bucket_of(self._pending.popleft())
                    buckets[bucket] = buckets.get(bucket, 0) + 1
            except IndexError:
                pass
            counts = dict(self._before)
            for bucket, count in buckets.items():
                counts[bucket] = counts.get(bucket, 0) + count
            self._seen = sum(counts.values())
            self._cached = _quantile(counts, self.p * self._seen) if counts else None
            self._fresh_until = now + 1.0
        if pending:
            run_pending()

    def _rotate(self, now: float) -> None:
        """Begin another window if the time of this one is over. Lock held."""
        if not 0.0 <= now - self._at < WINDOW:
            # A time before means that the clock was set back, as at the end of virtual time.
            self._before = self._buckets if 0.0 <= now - self._at < 2 * WINDOW else {}
            self._buckets = {}
            self._at = now


def _bucket_of(seconds: float) -> int:
    """Return the number of the bucket of a duration."""
    return math.floor(math.log(max(seconds, _SHORTEST)) / _GROWTH)


def _quantile(counts: dict[int, int], rank: float) -> float:
    """Return the middle of the bucket in which the duration of that rank is."""
    below = 0
    bucket = 0
    for bucket in sorted(counts):
        below += counts[bucket]
        if below >= rank:
            break
    return math.exp((bucket + 0.5) * _GROWTH)
