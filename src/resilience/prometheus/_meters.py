"""The counts of calls and attempts within one process: the durations are kept, and added up many at a time.

A good ending costs an append to a list. When there are many, or at a scrape, they are sorted and put into the buckets
of the histogram, which takes a fraction of the time that it takes for each by itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeAlias

from resilience import EndingKind
from resilience._pipeline.observers import MOST_PENDING, MeterGate, Meters
from resilience._util.finalizers import pending, run_pending
from resilience._util.quantile import QuantileEstimator
from resilience.events import Outcome
from resilience.prometheus._families import RETRY_BUCKETS

Lock: TypeAlias = "AbstractContextManager[object]"
P = 0.99
"""The quantile of the attempts' durations that is compared with the timeout."""
LEAST_ATTEMPTS = 100
"""The number of attempts before there is such a quantile."""


class Histogram:
    """A histogram.

    Args:
        bounds: the upper bounds of the buckets, ascending; there is one more bucket without a bound.

    Attributes:
        counts: the number of values in each bucket.
        sum: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add_sorted(self, values: Sequence[float]) -> None:
        """Add values in ascending order."""
        self.sum += sum(values)
        below, number = 0, len(values)
        for index, bound in enumerate(self.bounds):
            if below == number:
                return
            at = bisect_right(values, bound, below)
            self.counts[index] += at - below
            below = at
        self.counts[-1] += number - below

    def copy(self) -> Histogram:
        """Return a copy."""
        other = Histogram(self.bounds)
        other.counts, other.sum = list(self.counts), self.sum
        return other


class Reading(NamedTuple):
    """The counts of calls, or of attempts, of one moment.

    Attributes:
        outcomes: how many ended with each outcome.
        durations: how long they took.
        retries: the further attempts of the calls that needed any.
    """

    outcomes: dict[Outcome, int]
    durations: Histogram
    retries: Histogram


class Cell(MeterGate):
    """Counts the calls, or the attempts, of all pipelines of one name.

    Args:
        is_of_calls: whether it counts calls; otherwise attempts.
        lock: held while durations are added up.
        bounds: the buckets of the histogram of durations.
        outcomes: the outcomes that there can be.
        estimator: gets all durations, too; None for no estimator.
    """

    def __init__(
        self,
        lock: Lock,
        bounds: Sequence[float],
        outcomes: Iterable[Outcome],
        *,
        is_of_calls: bool,
        estimator: QuantileEstimator | None = None,
    ) -> None:
        super().__init__(is_of_calls=is_of_calls)
        self.ok = self.pending.append
        self.companion: Cell | None = None
        """The cell that is flushed together with this one."""
        self._others: list[tuple[Outcome, float, int]] = []
        self._lock = lock
        self._folding = False
        self._outcomes = dict.fromkeys(outcomes, 0)
        self._durations = Histogram(bounds)
        self._retries = Histogram(RETRY_BUCKETS)
        self._estimator = estimator

    def ended(self, outcome: Outcome, seconds: float, attempts: int) -> None:
        """Count a call or an attempt."""
        self._others.append((outcome, seconds, attempts))
        if len(self._others) > MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Add up what is pending, here and in the companion."""
        with self._lock:
            self._fold()
            if self.companion is not None:
                self.companion._fold()
        if pending:
            run_pending()

    def read(self) -> Reading:
        """Return the counts of now."""
        with self._lock:
            self._fold()
            reading = Reading(dict(self._outcomes), self._durations.copy(), self._retries.copy())
        if pending:
            run_pending()
        return reading

    def _fold(self) -> None:
        """Add up what is pending, each duration once. Lock held."""
        if self._folding:  # a signal handler has interrupted it, and counts what was added since with the next ones
            return
        self._folding = True
        try:
            good = self.pending[:]
            del self.pending[: len(good)]
            others = self._others[:]
            del self._others[: len(others)]
            self._add(good, others)
        finally:
            self._folding = False

    def _add(self, good: list[float], others: list[tuple[Outcome, float, int]]) -> None:
        """Add durations: those of good endings, and the endings of all others."""
        self._outcomes[Outcome.OK] += len(good)
        for outcome, seconds, _ in others:
            self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
            good.append(seconds)
        if not good:
            return
        good.sort()
        self._durations.add_sorted(good)
        if self._estimator is not None:
            self._estimator.add_sorted(good)
        elif retries := sorted(attempts - 1 for _, _, attempts in others if attempts > 1):
            self._retries.add_sorted(retries)


class NamedMeters:
    """The counts of all pipelines of one name.

    Args:
        lock: held while durations are added up.
        bounds: the buckets of the histograms of durations.

    Attributes:
        calls: counts calls.
        attempts: counts attempts.
        estimator: estimates the quantile of the durations of attempts.
        meters: the two counts, for the drivers.
    """

    def __init__(self, lock: Lock, bounds: Sequence[float]) -> None:
        self.estimator = QuantileEstimator(P)
        self.calls = Cell(lock, bounds, Outcome, is_of_calls=True)
        kinds = [Outcome(kind) for kind in EndingKind]
        self.attempts = Cell(lock, bounds, kinds, is_of_calls=False, estimator=self.estimator)
        self.calls.companion = self.attempts
        self.attempts.companion = self.calls
        self.meters = Meters(self.calls, self.attempts)
