"""The counters that events count."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from resilience._util.finalizers import pending, run_later, run_pending
from resilience._util.locks import is_owned, new_lock
from resilience.events import (
    BreakerChanged,
    CooldownEnded,
    CooldownStarted,
    Event,
    FallbackUsed,
    HedgeEnded,
    Mode,
    Rejected,
    RetryGivenUp,
    RetryScheduled,
    TimedOut,
    Waited,
)
from resilience.prometheus._families import (
    BREAKER_TRANSITIONS,
    COUNTED_BY_EVENTS,
    DEADLINE_EXCEEDED,
    FALLBACKS,
    HEDGES,
    RATE_LIMIT_WAIT,
    REJECTIONS,
    RETRIES_REFUSED,
    RETRY_WAIT,
    Family,
)
from resilience.prometheus._labels import Labels

COUNTED = (
    BreakerChanged,
    FallbackUsed,
    HedgeEnded,
    Rejected,
    RetryGivenUp,
    RetryScheduled,
    TimedOut,
    Waited,
)
"""The events that are counted: none that a good call publishes."""
STATE_CHANGES = (BreakerChanged, CooldownEnded, CooldownStarted)
"""The events that tell that the state of a policy has changed."""
NO_REASON = "other"
"""The reason of rejections by policies that give none."""


class Counts(Protocol):
    """Counters with labels."""

    def add(self, family: Family, values: tuple[str, ...], by: float = 1.0) -> None:
        """Increase a counter.

        Args:
            family: the metric.
            values: the values of its labels.
            by: by how much.
        """


class OwnCounts(Counts):
    """Counters within one process."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._values: dict[Family, dict[tuple[str, ...], float]] = {family: {} for family in COUNTED_BY_EVENTS}

    def add(self, family: Family, values: tuple[str, ...], by: float = 1.0) -> None:
        """Increase a counter."""
        if is_owned(self._lock):  # a signal handler has interrupted it
            run_later(partial(self.add, family, values, by))
            return
        with self._lock:
            found = self._values[family]
            found[values] = found.get(values, 0.0) + by
        if pending:
            run_pending()

    def read(self) -> dict[Family, dict[tuple[str, ...], float]]:
        """Return the values of all counters by those of their labels."""
        with self._lock:
            return {family: dict(found) for family, found in self._values.items()}


class Listener:
    """Counts events.

    Args:
        counts: the counters.
        labels: gives the values of labels.
        state_changed: called after an event that tells that the state of a policy has changed.
    """

    def __init__(self, counts: Counts, labels: Labels, state_changed: Callable[[], object]) -> None:
        self._counts = counts
        self._labels = labels
        self._state_changed = state_changed

    def __call__(self, event: Event) -> None:
        """Count an event, unless its pipeline has no name."""
        if not event.pipeline:
            return
        pipeline = self._labels.pipeline(event.pipeline)
        policy = self._labels.policy(event.policy)
        if isinstance(event, BreakerChanged | Rejected | Waited):
            self._count_of_policy(event, pipeline, policy)
        elif isinstance(event, RetryGivenUp):
            self._counts.add(RETRIES_REFUSED, (pipeline, event.reason.value))
        elif getattr(event, "mode", Mode.ENFORCE) is Mode.ENFORCE:
            self._count_of_pipeline(event, pipeline)
        if isinstance(event, STATE_CHANGES):
            self._state_changed()

    def _count_of_policy(self, event: BreakerChanged | Rejected | Waited, pipeline: str, policy: str) -> None:
        """Count an event of a metric that has a label `policy`."""
        values: tuple[str, ...]
        if isinstance(event, BreakerChanged):
            family, values, by = BREAKER_TRANSITIONS, (pipeline, policy, event.state.value), 1.0
        elif isinstance(event, Rejected):
            reason = NO_REASON if event.reason is None else event.reason.value
            family, values, by = REJECTIONS, (pipeline, policy, reason, event.mode.value), 1.0
        elif self._labels.is_rate_limit(pipeline, policy):
            family, values, by = RATE_LIMIT_WAIT, (pipeline, policy), event.seconds
        else:
            return
        self._counts.add(family, self._labels.with_key(family, values, event.partition_key), by)

    def _count_of_pipeline(self, event: Event, pipeline: str) -> None:
        """Count an event of a policy in enforce mode for its pipeline."""
        if isinstance(event, RetryScheduled):
            self._counts.add(RETRY_WAIT, (pipeline,), event.wait)
        elif isinstance(event, TimedOut):
            self._counts.add(DEADLINE_EXCEEDED, (pipeline, event.scope.value))
        elif isinstance(event, HedgeEnded):
            self._counts.add(HEDGES, (pipeline, event.result.value))
        elif isinstance(event, FallbackUsed):
            self._counts.add(FALLBACKS, (pipeline,))
