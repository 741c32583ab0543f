"""The metrics of one of several processes, written into the multiprocess directory of `prometheus_client`.

There, a collector of our own would not be asked: the process that is scraped reads the files of all. So counts are
written with each call, and the gauges by a thread once a second, so that those of a process without calls stay true.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from resilience import EndingKind
from resilience._call.call import PipelineInfo, foreign_retries
from resilience._pipeline.observers import MeterGate, Meters
from resilience._util.finalizers import pending, run_later, run_pending
from resilience._util.locks import members, new_lock, thread_state
from resilience._util.log_once import hook_failed
from resilience._util.quantile import QuantileEstimator
from resilience.events import Outcome, TimeoutScope
from resilience.events._delivery import listener_errors
from resilience.prometheus._collector import by_label, library_version, timeout_ratios
from resilience.prometheus._counts import COUNTED, STATE_CHANGES, Listener
from resilience.prometheus._families import (
    ATTEMPT_DURATION,
    ATTEMPT_TIMEOUT_RATIO,
    ATTEMPTS,
    BUILD_INFO,
    CALL_DURATION,
    CALL_RETRIES,
    CALLS,
    DEADLINE_EXCEEDED,
    FALLBACKS,
    FAMILIES,
    FOREIGN_RETRIES,
    LISTENER_ERRORS,
    RETRY_BUCKETS,
    RETRY_WAIT,
    Family,
)
from resilience.prometheus._labels import Labels
from resilience.prometheus._live import Gauges
from resilience.prometheus._meters import LEAST_ATTEMPTS, P
from resilience.prometheus._refresher import Refresher
from resilience.prometheus._selection import Selection


class SharedCell(MeterGate):
    """Counts the calls, or the attempts, of all pipelines of one name.

    Args:
        owner: the metrics.
        name: the value of the label `pipeline`.
        estimator: gets the durations of attempts; None for calls.
    """

    def __init__(self, owner: SharedMetrics, name: str, estimator: QuantileEstimator | None = None) -> None:
        super().__init__(is_of_calls=estimator is None)
        self._owner = owner
        self._estimator = estimator
        counted, timed = (CALLS, CALL_DURATION) if estimator is None else (ATTEMPTS, ATTEMPT_DURATION)
        outcomes = Outcome if estimator is None else map(Outcome, EndingKind)
        self._outcomes = {outcome: owner.metrics[counted].labels(name, outcome.value) for outcome in outcomes}
        self._durations = owner.metrics[timed].labels(name)
        self._retries = owner.metrics[CALL_RETRIES].labels(name)
        self.ok = partial(self._count, Outcome.OK, 1)

    def ended(self, outcome: Outcome, seconds: float, attempts: int) -> None:
        """Count a call or an attempt."""
        if thread_state.finalizing:  # it may have interrupted a write, while the lock of `prometheus_client` is held
            run_later(partial(self._count, outcome, attempts, seconds))
        else:
            self._count(outcome, attempts, seconds)

    def _count(self, outcome: Outcome, attempts: int, seconds: float) -> None:
        owner = self._owner
        if not owner.refresher.running:
            owner.refresher.start()
        try:
            with owner.lock:
                self._outcomes[outcome].inc()
                self._durations.observe(seconds)
                if self._estimator is None and attempts > 1:
                    self._retries.observe(attempts - 1)
        except Exception as error:  # such as a directory that does not exist
            hook_failed("metrics in a multiprocess directory", self._durations, error)
        if self._estimator is not None:
            self._estimator.add(seconds)
        if pending:
            run_pending()


class SharedMetrics:
    """The metrics of one of several processes.

    Args:
        selection: the pipelines that are measured.
        labels: gives the values of labels.
        bounds: the buckets of the histograms of durations.

    Attributes:
        lock: held while values are written: what a finalizer has to count meanwhile waits until that is done.
        metrics: the metrics of `prometheus_client`.
        refresher: keeps the gauges up to date.
    """

    def __init__(self, selection: Selection, labels: Labels, bounds: Sequence[float]) -> None:
        self.lock = new_lock()
        self.metrics: dict[Family, Any] = {}
        self.refresher = Refresher(self.refresh)
        self._selection = selection
        self._labels = labels
        self._bounds = bounds
        self._meters: dict[str, Meters] = {}
        self._estimators: dict[str, QuantileEstimator] = {}
        self._written: set[tuple[Family, tuple[str, ...]]] = set()
        self._told: dict[Family, dict[str, int]] = {LISTENER_ERRORS: {}, FOREIGN_RETRIES: {}}

    def open(self, registry: CollectorRegistry) -> None:
        """Make the metrics, and register them.

        Raises:
            ValueError: the registry has metrics of these names.
        """
        try:
            for family in FAMILIES:
                self.metrics[family] = _make(family, self._labels, self._bounds, registry)
        except ValueError:
            self.close(registry)
            raise
        _open.add(self)

    def close(self, registry: CollectorRegistry) -> None:
        """Undo `open` and `listen`. What was written stays in the directory."""
        self._selection.unsubscribe()
        self.refresher.stop()
        _open.discard(self)
        for metric in self.metrics.values():
            with contextlib.suppress(KeyError):  # it was unregistered by someone else
                registry.unregister(metric)

    def forget(self) -> None:
        """Take note of a fork: the child writes files of its own, which begin at zero."""
        self._written = set()
        self._told = {family: counts.totals() for family, counts in _COUNTS.items()}
        self.refresher.forget()

    def listen(self) -> None:
        """Subscribe to the events that are counted."""
        listener = Listener(self, self._labels, self.refresher.changed)
        self._selection.subscribe(listener, (*COUNTED, *STATE_CHANGES))

    def add(self, family: Family, values: tuple[str, ...], by: float = 1.0) -> None:
        """Increase a counter."""
        with self.lock:
            self.metrics[family].labels(*values).inc(by)
        if pending:
            run_pending()

    def meters_of(self, info: PipelineInfo) -> Meters | None:
        """Return the meters of a pipeline: those of all pipelines of its name."""
        if not self._selection.includes(info):
            return None
        self._labels.learn(info)
        name = self._labels.pipeline(info.name)
        found = self._meters.get(name)
        if found is None:
            estimator = QuantileEstimator(P)
            made = Meters(SharedCell(self, name), SharedCell(self, name, estimator))
            with self.lock:
                found = self._meters.setdefault(name, made)
                self._estimators.setdefault(name, estimator)
                self._begin_at_zero(name)
            if pending:
                run_pending()
        return found

    def _begin_at_zero(self, name: str) -> None:
        """Make the counters of a pipeline that exist from the start. Lock held."""
        for family in (RETRY_WAIT, FALLBACKS, LISTENER_ERRORS, FOREIGN_RETRIES):
            self.metrics[family].labels(name)
        for scope in TimeoutScope:
            self.metrics[DEADLINE_EXCEEDED].labels(name, scope.value)

    def refresh(self) -> None:
        """Write the gauges, and what the library has counted by itself."""
        live = self._selection.live()
        gauges = Gauges(self._labels)
        gauges.read(live)
        estimates = {name: one.estimate(LEAST_ATTEMPTS) for name, one in dict(self._estimators).items()}
        gauges.values[ATTEMPT_TIMEOUT_RATIO] = timeout_ratios(estimates, live, self._labels)
        values = {(family, labels): value for family, found in gauges.values.items() for labels, value in found.items()}
        with self.lock:
            for family, labels in self._written - values.keys():
                self.metrics[family].labels(*labels).set(0)
            for (family, labels), value in values.items():
                self.metrics[family].labels(*labels).set(value)
            self._written = set(values)
            self.metrics[BUILD_INFO].labels(library_version()).set(1)
            for family, counts in _COUNTS.items():
                self._count_new(family, counts.totals())
        if pending:
            run_pending()

    def _count_new(self, family: Family, totals: dict[str, int]) -> None:
        """Add what has been counted since the last time. Lock held."""
        told = self._told[family]
        new = by_label({name: total - told.get(name, 0) for name, total in totals.items()}, self._meters)
        for labels, count in new.items():
            self.metrics[family].labels(*labels).inc(count)
        self._told[family] = totals


_COUNTS = {LISTENER_ERRORS: listener_errors, FOREIGN_RETRIES: foreign_retries}
_open: WeakSet[SharedMetrics] = WeakSet()
"""All that are in use."""


def _make(family: Family, labels: Labels, bounds: Sequence[float], registry: CollectorRegistry) -> Any:
    """Return a metric of `prometheus_client`."""
    names = family.labels if family is BUILD_INFO else family.all_labels(key_labels=labels.key_labels)
    if family.kind == "counter":
        return Counter(family.name, family.help, names, registry=registry)
    if family.kind == "gauge":
        return Gauge(family.name, family.help, names, registry=registry, multiprocess_mode=family.workers)
    buckets = RETRY_BUCKETS if family is CALL_RETRIES else bounds
    return Histogram(family.name, family.help, names, registry=registry, buckets=buckets)


# A fork waits until no thread writes, since the child would find the lock of `prometheus_client` held for ever.


def _before_fork() -> None:
    for metrics in members(_open):
        metrics.lock.acquire()
        _held.append(metrics)


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()


def _after_fork_in_child() -> None:
    forked = list(_held)
    _after_fork()
    for metrics in forked:
        metrics.forget()


_held: list[SharedMetrics] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
