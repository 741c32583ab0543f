"""The collector, which a registry asks for all metrics of the process at each scrape."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from resilience._call.call import PipelineInfo, foreign_retries
from resilience._pipeline.observers import Meters
from resilience._util.clock import FOREVER
from resilience._util.finalizers import pending, run_pending
from resilience._util.label_values import OVERFLOW, label_text
from resilience._util.locks import new_lock
from resilience.events import TimeoutScope
from resilience.events._delivery import listener_errors
from resilience.prometheus._counts import COUNTED, Listener, OwnCounts
from resilience.prometheus._families import (
    ATTEMPT_DURATION,
    ATTEMPT_TIMEOUT_RATIO,
    ATTEMPTS,
    BUILD_INFO,
    CALL_DURATION,
    CALL_RETRIES,
    CALLS,
    COUNTED_BY_EVENTS,
    DEADLINE_EXCEEDED,
    FALLBACKS,
    FAMILIES,
    FOREIGN_RETRIES,
    GAUGES,
    LISTENER_ERRORS,
    RETRY_WAIT,
    Family,
)
from resilience.prometheus._fork import forget, hold_while_forking
from resilience.prometheus._labels import Labels
from resilience.prometheus._live import Gauges, attempt_timeout
from resilience.prometheus._meters import LEAST_ATTEMPTS, Histogram, NamedMeters
from resilience.prometheus._selection import Selection

Values = dict[tuple[str, ...], float]


class OwnMetrics(Collector):
    """The metrics of one process, counted here, and read at each scrape.

    Args:
        selection: the pipelines that are measured.
        labels: gives the values of labels.
        bounds: the buckets of the histograms of durations.

    Attributes:
        lock: held while durations are added up.
    """

    def __init__(self, selection: Selection, labels: Labels, bounds: Sequence[float]) -> None:
        self._selection = selection
        self._labels = labels
        self._bounds = bounds
        self.lock = new_lock()
        self._meters: dict[str, NamedMeters] = {}
        self._counts = OwnCounts()

    def open(self, registry: CollectorRegistry) -> None:
        """Register with a registry.

        Raises:
            ValueError: the registry has metrics of these names.
        """
        registry.register(self)
        hold_while_forking(self)

    def close(self, registry: CollectorRegistry) -> None:
        """Undo `open` and `listen`."""
        self._selection.unsubscribe()
        registry.unregister(self)
        forget(self)

    def forget(self) -> None:
        """Take note of a fork: the child goes on counting from what was counted before."""

    def listen(self) -> None:
        """Subscribe to the events that are counted."""
        self._selection.subscribe(Listener(self._counts, self._labels, lambda: None), COUNTED)

    def meters_of(self, info: PipelineInfo) -> Meters | None:
        """Return the meters of a pipeline: those of all pipelines of its name."""
        if not self._selection.includes(info):
            return None
        self._labels.learn(info)
        return self._named(info).meters

    def describe(self) -> Iterable[Metric]:
        """Yield all metrics without values, so that a registration is no scrape."""
        return [_family(family, self._labels) for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        live = self._selection.live()
        for info in live:
            self._named(info)
        with self.lock:
            named = dict(self._meters)
        if pending:
            run_pending()
        yield from self._calls_and_attempts(named)
        yield from self._counters(named)
        yield from self._gauges(named, live)
        build = GaugeMetricFamily(BUILD_INFO.name, BUILD_INFO.help, labels=BUILD_INFO.labels)
        build.add_metric([library_version()], 1)
        yield build

    def _named(self, info: PipelineInfo) -> NamedMeters:
        """Return the meters for the name of a pipeline."""
        name = self._labels.pipeline(info.name)
        found = self._meters.get(name)
        if found is None:
            made = NamedMeters(self.lock, self._bounds)
            with self.lock:
                found = self._meters.setdefault(name, made)
            if pending:
                run_pending()
        return found

    def _calls_and_attempts(self, named: dict[str, NamedMeters]) -> Iterator[Metric]:
        calls, attempts = _family(CALLS, self._labels), _family(ATTEMPTS, self._labels)
        call_times, attempt_times = _family(CALL_DURATION, self._labels), _family(ATTEMPT_DURATION, self._labels)
        retries = _family(CALL_RETRIES, self._labels)
        for name, meters in named.items():
            of_calls, of_attempts = meters.calls.read(), meters.attempts.read()
            for family, reading in ((calls, of_calls), (attempts, of_attempts)):
                for outcome, count in reading.outcomes.items():
                    family.add_metric((name, outcome.value), count)
            _add_histogram(call_times, name, of_calls.durations)
            _add_histogram(attempt_times, name, of_attempts.durations)
            _add_histogram(retries, name, of_calls.retries)
        return iter((calls, call_times, attempts, attempt_times, retries))

    def _counters(self, named: dict[str, NamedMeters]) -> Iterator[Metric]:
        counted = self._counts.read()
        for family in COUNTED_BY_EVENTS:
            yield _with(_family(family, self._labels), {**_zeros(family, named), **counted[family]})
        for family, totals in ((LISTENER_ERRORS, listener_errors), (FOREIGN_RETRIES, foreign_retries)):
            yield _with(_family(family, self._labels), by_label(totals.totals(), named))

    def _gauges(self, named: dict[str, NamedMeters], live: Sequence[PipelineInfo]) -> Iterator[Metric]:
        gauges = Gauges(self._labels)
        gauges.read(live)
        estimates = {name: meters.estimator.estimate(LEAST_ATTEMPTS) for name, meters in named.items()}
        gauges.values[ATTEMPT_TIMEOUT_RATIO] = timeout_ratios(estimates, live, self._labels)
        for family in GAUGES:
            yield _with(_family(family, self._labels), gauges.values.get(family, {}))


def library_version() -> str:
    """Return the version of the library; "unknown" if it was not installed as a distribution."""
    try:
        return version("resilience-client")
    except PackageNotFoundError:
        return "unknown"


def by_label(totals: dict[str, int], known: Collection[str]) -> Values:
    """Return counts by the name of pipelines as those by the value of the label; 0 for a known one without a count.

    Args:
        totals: the counts by the names.
        known: the values of the label.
    """
    values: Values = {(name,): 0.0 for name in known}
    for name, count in totals.items():
        label = label_of(name, known)
        if label is not None:
            values[label,] += count
    return values


def label_of(name: str, known: Collection[str]) -> str | None:
    """Return the value of the label of a pipeline with a name; None if it is not measured, or has no name.

    Args:
        name: the name.
        known: the values of the label.
    """
    label = label_text(name)
    label = label if label in known else OVERFLOW
    return label if name and label in known else None


def timeout_ratios(estimates: dict[str, float | None], live: Iterable[PipelineInfo], labels: Labels) -> Values:
    """Return the ATTEMPT_TIMEOUT_RATIO of the pipelines that have a timeout, and have made enough attempts.

    Args:
        estimates: the quantiles of the durations of attempts by pipeline; None where too little is known.
        live: the pipelines.
        labels: gives the values of labels.
    """
    ratios: Values = {}
    for info in live:
        name = labels.pipeline(info.name)
        seconds, timeout = estimates.get(name), attempt_timeout(info)
        if seconds is not None and timeout is not None:
            ratios[name,] = max(ratios.get((name,), 0.0), seconds / timeout)
    return ratios


def _family(family: Family, labels: Labels) -> Any:
    """Return a metric without values, whose class has an `add_metric` of its own."""
    names = BUILD_INFO.labels if family is BUILD_INFO else family.all_labels(key_labels=labels.key_labels)
    if family.kind == "counter":
        return CounterMetricFamily(family.name, family.help, labels=names)
    if family.kind == "gauge":
        return GaugeMetricFamily(family.name, family.help, labels=names)
    return HistogramMetricFamily(family.name, family.help, labels=names)


def _with(metric: Any, values: Values) -> Metric:
    """Return a counter or gauge with its values."""
    for labels, value in values.items():
        metric.add_metric(labels, value)
    filled: Metric = metric
    return filled


def _zeros(family: Family, named: Iterable[str]) -> Values:
    """Return the values that a counter has from the start."""
    if family in (RETRY_WAIT, FALLBACKS):
        return {(name,): 0.0 for name in named}
    if family is DEADLINE_EXCEEDED:
        return {(name, scope.value): 0.0 for name in named for scope in TimeoutScope}
    return {}


def _add_histogram(metric: Any, name: str, histogram: Histogram) -> None:
    """Add the values of a histogram."""
    below = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*histogram.bounds, FOREVER), histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == FOREVER else repr(bound), below))
    metric.add_metric((name,), buckets, histogram.sum)
