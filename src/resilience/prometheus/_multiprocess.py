"""The metrics of one of several processes, written into the multiprocess directory of `prometheus_client`.

There, a collector of our own would not be asked: the process that is scraped reads the files of all. So counts are
written with each call, and the gauges by a thread once a second, so that those of a process without calls stay true.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from resilience import EndingKind
from resilience._call.call import PipelineInfo, foreign_retries
from resilience._pipeline.observers import MeterGate, Meters
from resilience._util.finalizers import pending, run_later, run_pending
from resilience._util.locks import is_owned, new_lock, thread_state
from resilience._util.log_once import hook_failed
from resilience._util.quantile import QuantileEstimator
from resilience.events import Outcome, TimeoutScope
from resilience.events._delivery import listener_errors
from resilience.prometheus._collector import label_of, library_version, timeout_ratios
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
from resilience.prometheus._fork import forget, hold_while_forking
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
        self._label = name
        self._estimator = estimator
        self._outcomes: dict[Outcome, Any] = {}
        self._durations: Any = None
        self._retries: Any = None
        self.ok = partial(self._count, Outcome.OK, 1)

    def begin(self) -> None:
        """Make the counts, which begin at zero. Lock of the owner held."""
        counted, timed = (CALLS, CALL_DURATION) if self._estimator is None else (ATTEMPTS, ATTEMPT_DURATION)
        metrics, name = self._owner.metrics, self._label
        self._durations = metrics[timed].labels(name)
        self._retries = metrics[CALL_RETRIES].labels(name)
        outcomes = Outcome if self._estimator is None else map(Outcome, EndingKind)
        self._outcomes = {outcome: metrics[counted].labels(name, outcome.value) for outcome in outcomes}

    def ended(self, outcome: Outcome, seconds: float, attempts: int) -> None:
        """Count a call or an attempt."""
        self._count(outcome, attempts, seconds)

    def _count(self, outcome: Outcome, attempts: int, seconds: float) -> None:
        owner = self._owner
        if owner.is_interrupted():
            run_later(partial(self._count, outcome, attempts, seconds))
            return
        if not owner.refresher.running:
            owner.refresher.start()
        try:
            with owner.lock:
                if not self._outcomes:
                    self.begin()
                self._outcomes[outcome].inc()
                self._durations.observe(seconds)
                if self._estimator is None and attempts > 1:
                    self._retries.observe(attempts - 1)
        except Exception as error:
            _failed(self._label, self._count, error)
        if self._estimator is not None:
            self._estimator.add(seconds)
        if pending:
            run_pending()


class _Cells(NamedTuple):
    """The counts of all pipelines of one name."""

    calls: SharedCell
    attempts: SharedCell


class SharedMetrics:
    """The metrics of one of several processes.

    Args:
        selection: the pipelines that are measured.
        labels: gives the values of labels.
        bounds: the buckets of the histograms of durations.

    Attributes:
        lock: held while values are written: what a finalizer or a signal handler has to count meanwhile waits until
            that is done, since `prometheus_client` holds a lock of its own that is not reentrant.
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
        self._meters: dict[str, _Cells] = {}
        self._estimators: dict[str, QuantileEstimator] = {}
        self._written: set[tuple[Family, tuple[str, ...]]] = set()
        self._told: dict[Family, dict[str, int]] = {LISTENER_ERRORS: {}, FOREIGN_RETRIES: {}}

    def open(self, registry: CollectorRegistry) -> None:
        """Make the metrics, and register them.

        Raises:
            ValueError: the registry has metrics of these names.
        """
        hold_while_forking(self)
        try:
            with self.lock:
                for family in FAMILIES:
                    self.metrics[family] = _make(family, self._labels, self._bounds, registry)
        except ValueError:
            self.close(registry)
            raise

    def close(self, registry: CollectorRegistry) -> None:
        """Undo `open` and `listen`. What was written stays in the directory."""
        self._selection.unsubscribe()
        self.refresher.stop()
        forget(self)
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

    def is_interrupted(self) -> bool:
        """Return whether what runs may have interrupted a write of this thread, as finalizers and signal handlers do.

        The write may hold the lock of `prometheus_client`, so nothing may be written before it is done.
        """
        return thread_state.finalizing or is_owned(self.lock)

    def add(self, family: Family, values: tuple[str, ...], by: float = 1.0) -> None:
        """Increase a counter."""
        self._write(lambda: self.metrics[family].labels(*values).inc(by))

    def meters_of(self, info: PipelineInfo) -> Meters | None:
        """Return the meters of a pipeline: those of all pipelines of its name."""
        if not self._selection.includes(info):
            return None
        self._labels.learn(info)
        name = self._labels.pipeline(info.name)
        found = self._meters.get(name)
        if found is None:
            estimator = self._estimators.setdefault(name, QuantileEstimator(P))
            made = _Cells(SharedCell(self, name), SharedCell(self, name, estimator))
            found = self._meters.setdefault(name, made)
            try:
                self._write(partial(self._begin_at_zero, name))
            except Exception as error:
                _failed(name, self._begin_at_zero, error)
        return Meters(*found)

    def _write(self, function: Callable[[], object]) -> None:
        """Call a function that writes values with the lock held; once the write that this interrupts is done."""
        if self.is_interrupted():
            run_later(partial(self._write, function))
            return
        with self.lock:
            function()
        if pending:
            run_pending()

    def _begin_at_zero(self, name: str) -> None:
        """Make the counters of a pipeline that exist from the start. Lock held."""
        for cell in self._meters[name]:
            cell.begin()
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
        """Add what has been counted since the last time, by pipelines that are known. Lock held."""
        told = self._told[family]
        for name, total in totals.items():
            label = label_of(name, self._meters)
            if label is not None and total > told.get(name, 0):
                self.metrics[family].labels(label).inc(total - told.get(name, 0))
                told[name] = total


def _failed(name: str, hook: object, error: Exception) -> None:
    """Count and log an error of a write, such as that of a directory that does not exist."""
    listener_errors.add(name)
    hook_failed("metrics in a multiprocess directory", hook, error)


_COUNTS = {LISTENER_ERRORS: listener_errors, FOREIGN_RETRIES: foreign_retries}


def _make(family: Family, labels: Labels, bounds: Sequence[float], registry: CollectorRegistry) -> Any:
    """Return a metric of `prometheus_client`."""
    names = family.labels if family is BUILD_INFO else family.all_labels(key_labels=labels.key_labels)
    if family.kind == "counter":
        return Counter(family.name, family.help, names, registry=registry)
    if family.kind == "gauge":
        return Gauge(family.name, family.help, names, registry=registry, multiprocess_mode=family.workers)
    buckets = RETRY_BUCKETS if family is CALL_RETRIES else bounds
    return Histogram(family.name, family.help, names, registry=registry, buckets=buckets)
