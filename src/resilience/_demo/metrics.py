"""`/metrics` while the demo runs: the metrics of the pipelines, and the calls and attempts of all arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from resilience import Pipeline
from resilience._demo.gate import HOST
from resilience._demo.records import BreakerRecord, CallRecord
from resilience._demo.run import Result, View
from resilience._demo.script import Span
from resilience.prometheus import PrometheusMetrics


class DemoMetrics(Collector):
    """The calls and attempts of all arms, as counters. It is a view that passes on everything to another one.

    Args:
        view: the other view.
        registry: gets the metrics.
    """

    def __init__(self, view: View, registry: CollectorRegistry) -> None:
        self._view = view
        self._registry = registry
        self._calls = Counter[tuple[str, str, str]]()
        self._result: Result | None = None
        self._of_pipelines: PrometheusMetrics | None = None
        registry.register(self)

    def begin(self, result: Result, pipelines: Sequence[Pipeline[Any]]) -> None:
        """Measure these pipelines from now on."""
        self.close()
        self._result = result
        self._of_pipelines = PrometheusMetrics(self._registry, pipelines, multiprocess=False)
        self._view.begin(result, pipelines)

    def entered(self, span: Span) -> None:
        """Pass it on."""
        self._view.entered(span)

    def ended(self, record: CallRecord) -> None:
        """Count the call."""
        self._calls[record.arm, record.service, "served" if record.served else "failed"] += 1
        self._view.ended(record)

    def changed(self, record: BreakerRecord, why: str) -> None:
        """Pass it on."""
        self._view.changed(record, why)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the metrics of this moment."""
        calls = CounterMetricFamily("demo_calls", "Calls that have ended.", labels=("arm", "service", "outcome"))
        for labels, number in list(self._calls.items()):
            calls.add_metric(labels, number)
        yield calls
        sent = Counter[tuple[str, str]]()
        if self._result is not None:
            for (service, arm, _), number in list(self._result.records.sent.items()):
                sent[arm, service] += number
        attempts = CounterMetricFamily("demo_attempts", "Attempts that were sent.", labels=("arm", "service"))
        for pair, number in sent.items():
            attempts.add_metric(pair, number)
        yield attempts

    def close(self) -> None:
        """Measure no pipelines any more."""
        if self._of_pipelines is not None:
            self._of_pipelines.close()
            self._of_pipelines = None


@contextmanager
def metrics(view: View, port: int, say: Callable[[str], object]) -> Generator[View]:
    """Serve `/metrics` on loopback until the end of the block.

    Args:
        view: what shows the run.
        port: the port; 0 for one that is free.
        say: prints a line.

    Returns:
        The view that the run is to have.

    Raises:
        OSError: the port is taken.
    """
    registry = CollectorRegistry()
    measured = DemoMetrics(view, registry)
    server, thread = start_http_server(port, addr=HOST, registry=registry)
    say(f"Metrics while it runs: http://{HOST}:{server.server_port}/metrics")
    try:
        yield measured
    finally:
        measured.close()
        server.shutdown()
        server.server_close()
        thread.join()
