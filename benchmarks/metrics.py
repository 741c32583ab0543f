"""What the metrics for Prometheus cost: each call, and a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client as client

from benchmarks import ours
from benchmarks.calls import function
from benchmarks.clients import ADDED, differences
from benchmarks.peers import SYNC
from benchmarks.rounds import ANSWER, Contender, Found, OnThread, Plan, Subject, measure
from resilience import Pipeline, standard
from resilience.prometheus import PrometheusMetrics

OFF, ON, BOUND = "pipeline", "pipeline with PrometheusMetrics", "bound children"
SCRAPE, PLAIN = "a scrape of 100 pipelines", "a scrape of as many plain series"
PIPELINES = 100
WHILE = 20_000_000
"""Nanoseconds of a slice, so that in each the durations that were kept are added up a few times."""


def measured() -> Subject:
    """A pipeline that is measured; the others are not."""
    pipeline: Pipeline[Any] = ours.pipeline(name="measured")
    registry = client.CollectorRegistry()
    metrics = PrometheusMetrics(registry, [pipeline])
    guarded = pipeline(function(SYNC))
    guarded.metrics = metrics
    return Subject(guarded)


def bound() -> Subject:
    """The same counts by children that are bound beforehand: calls and attempts, and the durations of both."""
    registry = client.CollectorRegistry()

    def counter(name: str) -> Any:
        return client.Counter(name, "Counts.", ["pipeline", "outcome"], registry=registry).labels("measured", "ok")

    def histogram(name: str) -> Any:
        return client.Histogram(name, "Durations.", ["pipeline"], registry=registry).labels("measured")

    calls, attempts = counter("calls"), counter("attempts")
    call_times, attempt_times = histogram("call_seconds"), histogram("attempt_seconds")

    def count() -> int:
        attempts.inc()
        attempt_times.observe(1.5e-6)
        calls.inc()
        call_times.observe(2.5e-6)
        return ANSWER

    return Subject(count)


def scraped() -> Subject:
    """A registry with the metrics of pipelines of six policies each."""
    registry = client.CollectorRegistry()
    pipelines = [standard(f"pipeline-{number}") for number in range(PIPELINES)]
    for pipeline in pipelines:
        for _ in range(100):
            pipeline.call(int)
    metrics = PrometheusMetrics(registry, pipelines)
    for pipeline in pipelines:
        for _ in range(100):
            pipeline.call(int)
    return Subject(scrape(registry, metrics, pipelines))


def plain() -> Subject:
    """A registry with as many series of the same names and labels, of `prometheus_client` alone."""
    disable: Any = client.disable_created_metrics
    disable()
    registry = client.CollectorRegistry()
    source = client.CollectorRegistry()
    pipelines = [standard(f"pipeline-{number}") for number in range(PIPELINES)]
    with PrometheusMetrics(source, pipelines):
        for family in source.collect():
            copy(family, registry)
    return Subject(scrape(registry))


def copy(family: Any, registry: client.CollectorRegistry) -> None:
    """Make a metric with the series of another one."""
    if not family.samples:
        return
    names = [name for name in family.samples[0].labels if name != "le"]
    made: dict[str, Any] = {"counter": client.Counter, "gauge": client.Gauge, "histogram": client.Histogram}
    more = {"buckets": bounds(family)} if family.type == "histogram" else {}
    metric = made[family.type](family.name, family.documentation, names, registry=registry, **more)
    for sample in family.samples:
        metric.labels(*(sample.labels[name] for name in names))


def bounds(family: Any) -> list[float]:
    """The buckets of a histogram."""
    return sorted({float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels})


def scrape(registry: client.CollectorRegistry, *alive: object) -> Callable[[], int]:
    """Return what scrapes a registry."""

    def scrape_once() -> int:
        return ANSWER if client.generate_latest(registry) and alive is not None else 0

    return scrape_once


def calls() -> Iterator[Contender]:
    """A call without metrics and with them, and the counts by themselves."""
    yield Contender(OFF, lambda: Subject(ours.pipeline()(function(SYNC))))
    yield Contender(ON, measured)
    yield Contender(BOUND, bound)


def scrapes() -> Iterator[Contender]:
    """A scrape of our metrics, and one of plain ones."""
    yield Contender(SCRAPE, scraped)
    yield Contender(PLAIN, plain)


def run(plan: Plan, settled: Callable[[Found], bool]) -> Found:
    """Measure, and compute what the metrics add to a call."""

    def certain(found: Found) -> bool:
        add_difference(found)
        return settled(found)

    long = Plan(WHILE, plan.least, plan.seconds * 0.6)
    found = measure(calls(), OnThread(), long, certain)
    add_difference(found)
    few = Plan(plan.slice_ns, 7, plan.seconds * 0.4)
    other = measure(scrapes(), OnThread(), few, settled, least_calls=1)
    return Found({**found.series, **other.series}, {**found.missing, **other.missing})


def add_difference(found: Found) -> None:
    """Add what the metrics add to a call, by round."""
    if ON in found.series and OFF in found.series:
        found.series[ON + ADDED] = differences(found.series[ON], found.series[OFF])
