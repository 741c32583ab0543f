"""What is in force since `instrument`, and until `uninstrument`."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from resilience import CircuitBreaker, Pipeline, Retry, backoff
from resilience._pipeline.observers import ContextGate, MeterGate, installed
from resilience._util import log_once
from resilience.events import Event
from resilience.events._bus import everywhere
from resilience.opentelemetry import instrument, uninstrument
from resilience.opentelemetry._tracing import CallSpan
from tests.opentelemetry.telemetry import Telemetry
from tests.support.functions import Failing, down
from tests.support.interpreter import run_python
from tests.support.policies import Instead
from tests.support.threads import in_threads


def in_force() -> tuple[int, int, int]:
    return len(installed.all), len(installed.tracing), len(everywhere.all)


def test_the_same_providers_again_have_no_effect(providers: Telemetry) -> None:
    before = in_force()
    for _ in range(2):
        instrument(providers.tracer_provider, providers.meter_provider)
    try:
        Pipeline[Any]().call(int)
        assert len(providers.spans()) == 1
    finally:
        uninstrument()

    assert in_force() == before
    uninstrument()
    assert in_force() == before


def test_other_providers_are_an_error(providers: Telemetry) -> None:
    before = in_force()
    instrument(providers.tracer_provider, providers.meter_provider)
    try:
        with pytest.raises(ValueError, match="instrumented already, with other providers"):
            instrument(providers.tracer_provider)
        with pytest.raises(ValueError, match="uninstrument"):
            instrument(meter_provider=providers.meter_provider)
        Pipeline[Any]().call(int)
    finally:
        uninstrument()

    assert len(providers.spans()) == 1
    assert in_force() == before


def test_pipelines_made_before_and_after(providers: Telemetry) -> None:
    before = Pipeline[Any](name="before")
    before.call(int)
    instrument(providers.tracer_provider, providers.meter_provider)
    try:
        before.call(int)
        Pipeline[Any](name="after").call(int)
    finally:
        uninstrument()
    before.call(int)

    found = [dict(span.attributes or {})["resilience.pipeline"] for span in providers.spans()]
    assert found == ["before", "after"]


def test_providers_in_turn(providers: Telemetry) -> None:
    pipeline = Pipeline[Any](name="in turn")
    others = Telemetry()
    for telemetry in (providers, others, providers):
        instrument(telemetry.tracer_provider, telemetry.meter_provider)
        pipeline.call(int)
        uninstrument()

    counts = [
        telemetry.value("resilience_calls", pipeline="in turn", outcome="ok") for telemetry in (providers, others)
    ]
    assert (len(providers.spans()), len(others.spans())) == (2, 1)
    assert counts == [2, 1]
    others.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("frequent_switches")
def test_instrument_and_uninstrument_while_calls_run(providers: Telemetry) -> None:
    pipeline, over = Pipeline[Any](Retry(2, wait=backoff.none()), name="switched", budget=None), threading.Event()
    started: list[int] = []

    class Counting(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            started.append(1)

    providers.tracer_provider.add_span_processor(Counting())

    def work() -> int:
        made = 0
        while not over.is_set():
            assert pipeline.call(Failing(1)) == "fine"
            made += 1
        return made

    def switch() -> int:
        try:
            for _ in range(30):
                instrument(providers.tracer_provider, providers.meter_provider)
                pipeline.call(int)
                uninstrument()
        finally:
            over.set()
        return 30

    made = sum(in_threads(4, lambda index: work() if index else switch()))

    assert 30 <= len(started) == len(providers.spans()) <= made
    uninstrument()


GLOBAL = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import resilience

exporter, reader, pipeline = InMemorySpanExporter(), InMemoryMetricReader(), resilience.Pipeline(name="quotes")
resilience.opentelemetry.instrument()
pipeline.bind(operation="early").call(int)
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
pipeline.bind(operation="traced").call(int)
resilience.opentelemetry.uninstrument()
pipeline.bind(operation="late").call(int)
resilience.opentelemetry.instrument()
pipeline.bind(operation="again").call(int)
print([span.name for span in exporter.get_finished_spans()])
(resource,) = reader.get_metrics_data().resource_metrics
found = {one.name: one.data.data_points[0] for one in resource.scope_metrics[0].metrics}
print(len(found), found["resilience_calls"].value, int(found["resilience_build_info"].value))
"""


def test_global_providers_that_are_set_later() -> None:
    spans, metrics = run_python(GLOBAL).splitlines()

    assert spans == "['traced', 'again']"
    assert metrics.split()[1:] == ["2", "1"]


ALONE = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Finder())
import resilience
resilience.opentelemetry.instrument()
resilience.opentelemetry.ResendCountProcessor()
print(resilience.Pipeline(resilience.Retry()).call(int))
resilience.opentelemetry.uninstrument()
"""


def test_the_api_alone_is_enough() -> None:
    assert run_python(ALONE) == "0\n"


@pytest.mark.parametrize(
    "given", [(), (trace.NoOpTracerProvider(), metrics.NoOpMeterProvider())], ids=["none", "no-op"]
)
def test_without_a_provider_no_event_and_no_span_is_made(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = watched(monkeypatch)
    before = in_force()
    for gate in (MeterGate, ContextGate):  # nor is any call counted by them
        monkeypatch.setattr(gate, "settle", lambda *args: made.append("an ending"))
    monkeypatch.setattr("resilience.opentelemetry._metrics._Meter.ok", lambda *args: made.append("a good ending"))
    instrument(*given)
    try:
        busy(f"nothing is made for {len(given)}")
        assert in_force() != before
    finally:
        uninstrument()

    assert made == []


def test_no_event_is_made_for_a_span_that_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    unsampled = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    made = watched(monkeypatch)
    instrument(unsampled, metrics.NoOpMeterProvider())
    try:
        busy("not sampled")
    finally:
        uninstrument()

    assert set(made) == {"CallSpan", "NonRecordingSpan"}


def busy(name: str) -> None:
    """Make calls that are retried, rejected, and replaced, also below a span of another library."""
    pipeline = Pipeline[Any](
        Instead(1), Retry(2, wait=backoff.none()), CircuitBreaker(consecutive_failures=3), name=name
    )
    outer = Pipeline[Any](pipeline)
    for function in (int, Failing(1), down, down, int):
        outer.call(function)
        asyncio.run(outer.acall(function))


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the type of each event and span that is made."""
    made: list[str] = []
    monkeypatch.setattr(log_once.logger, "disabled", True)  # a log line is written from an event, too

    def watch(kind: Any) -> None:
        begin = kind.__init__

        def init(self: Any, *args: Any, **more: Any) -> None:
            made.append(kind.__name__)
            begin(self, *args, **more)

        monkeypatch.setattr(kind, "__init__", init)

    for kind in (*Event.__subclasses__(), trace.NonRecordingSpan, CallSpan):
        watch(kind)
    return made


def test_the_package_is_imported_on_first_use_only() -> None:
    code = """
import sys, resilience
print("opentelemetry" in sys.modules)
resilience.opentelemetry
print("opentelemetry" in sys.modules)
"""

    assert run_python(code) == "False\nTrue\n"
    assert "opentelemetry" in sys.modules
