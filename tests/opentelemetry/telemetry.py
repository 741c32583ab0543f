"""What the SDK of OpenTelemetry has collected in a test."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from resilience.opentelemetry import ResendCountProcessor

Labels = frozenset[tuple[str, Any]]


class Telemetry:
    """Providers with everything in memory.

    Attributes:
        tracer: makes spans of the test itself.
    """

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(ResendCountProcessor())
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracer: Tracer = self.tracer_provider.get_tracer("test")

    def shutdown(self) -> None:
        """Shut the providers down."""
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Return the spans that have ended, in this order; those with a name only if it is given."""
        return [span for span in self.exporter.get_finished_spans() if name in (None, span.name)]

    def span(self, name: str) -> ReadableSpan:
        """Return the only span with that name."""
        (span,) = self.spans(name)
        return span

    def metrics(self) -> dict[str, dict[Labels, Any]]:
        """Return the values by the name of the metric and the attributes: numbers; of histograms, count and sum."""
        found: dict[str, dict[Labels, Any]] = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points: Any = metric.data.data_points
                    assert metric.name not in found, f"{metric.name} is there twice"
                    found[metric.name] = {frozenset(point.attributes.items()): value_of(point) for point in points}
        return found

    def value(self, metric: str, **labels: Any) -> Any:
        """Return a value of a metric; None if there is none."""
        return self.metrics().get(metric, {}).get(frozenset(labels.items()))


def value_of(point: Any) -> Any:
    """Return the value of a data point."""
    return point.value if hasattr(point, "value") else (point.count, point.sum)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a span."""
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Return whether a span is a child of another one."""
    context = parent.get_span_context()
    return span.parent is not None and context is not None and span.parent.span_id == context.span_id
