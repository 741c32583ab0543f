"""Guarded channels under the instrumentation of OpenTelemetry, which wraps channels of grpc, inside it and outside it.

The cells of the table say what is expected, but for what the interceptors of OpenTelemetry take away from everybody:
response streams that they have wrapped have neither a code nor metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.instrumentation import grpc as instrumentation
from opentelemetry.instrumentation.grpc import grpcext
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import resilience.grpc
from resilience import Pipeline
from tests.grpc.server_process import SERVICE
from tests.grpc.servers import OPTIONS, wait_until
from tests.grpc.table import CELLS, Cell
from tests.grpc.table_calls import Outcome, RunCell, guarded_channel
from tests.grpc.table_checks import seen_differences

pytestmark = pytest.mark.slow

OTEL: Any = instrumentation  # untyped
INTERCEPT: Any = grpcext.intercept_channel

ROWS = (
    "ok",
    "fails, then ok",
    "fails for good",
    "fails, then ok, not idempotent",
    "not found",
    "hangs, then ok",
    "dies in mid-stream",
    "deadline",
)
OWN = [cell for cell in CELLS if cell.server == ("aio" if cell.way.startswith("aio") else "sync")]
INSIDE = [cell for cell in OWN if cell.name in ROWS]
# In aio, its interceptor for a unary response awaits the end of the RPC, and grpc takes no request until it returns.
OUTSIDE = [cell for cell in INSIDE if (cell.arity, cell.way) != ("stream_unary", "aio_write")]
# In the synchronous API, its interceptor for unary-stream RPCs returns a generator, which cannot be cancelled.
LEFT_BEHIND = ("hangs, then ok", "unary_stream", "iterate")
CANCELLED = [
    cell
    for cell in OWN
    if cell.name in ("cancelled", "task cancelled") and (cell.arity, cell.way) != ("unary_stream", "iterate")
]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of an instrumented process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The synchronous instrumentation asks for the global provider, which can be set only once.
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    instrumentors = [OTEL.GrpcInstrumentorClient(), OTEL.GrpcAioInstrumentorClient()]
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
    try:
        yield exporter
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()


def inside(cell: Cell, target: str, pipeline: Pipeline[Any]) -> Any:
    """Return a channel whose interceptors of OpenTelemetry are inside of ours: they see each attempt."""
    idempotent = cell.scenario.idempotent
    if cell.way.startswith("aio"):
        ours = resilience.grpc.aio_client_interceptors(pipeline, idempotent=idempotent)
        return grpc.aio.insecure_channel(target, OPTIONS, interceptors=[*ours, *OTEL.aio_client_interceptors()])
    channel = INTERCEPT(grpc.insecure_channel(target, OPTIONS), OTEL.client_interceptor())
    return grpc.intercept_channel(channel, *resilience.grpc.client_interceptors(pipeline, idempotent=idempotent))


def outside(cell: Cell, target: str, pipeline: Pipeline[Any]) -> Any:
    """Return a channel whose interceptors of OpenTelemetry are outside of ours: they see one call."""
    idempotent = cell.scenario.idempotent
    if cell.way.startswith("aio"):
        ours = resilience.grpc.aio_client_interceptors(pipeline, idempotent=idempotent)
        return grpc.aio.insecure_channel(target, OPTIONS, interceptors=[*OTEL.aio_client_interceptors(), *ours])
    ours = resilience.grpc.client_interceptors(pipeline, idempotent=idempotent)
    return INTERCEPT(grpc.intercept_channel(grpc.insecure_channel(target, OPTIONS), *ours), OTEL.client_interceptor())


def differences(cell: Cell, outcome: Outcome) -> list[str]:
    """Return in what an outcome differs, but for the cancellation of an attempt that cannot be cancelled."""
    found = seen_differences(cell, outcome)
    if (cell.name, cell.arity, cell.way) == LEFT_BEHIND:
        found = [one for one in found if not one.startswith("attempts ended")]
    return found


@pytest.mark.parametrize("cell", OUTSIDE, ids=str)
def test_a_channel_that_is_made_in_an_instrumented_process(
    run_cell: RunCell, spans: InMemorySpanExporter, cell: Cell
) -> None:
    outcome = run_cell(cell, guarded_channel)
    assert differences(cell, outcome) == []
    # The synchronous instrumentation is inside of our interceptors, that of aio comes before all interceptors.
    number = 1 if cell.way.startswith("aio") else cell.expected.calls
    assert wait_until(lambda: len(spans.get_finished_spans()) == number)
    assert {span.name for span in spans.get_finished_spans()} == {f"{SERVICE}{cell.arity}"}
    traced = [dict(attempt.metadata).get("traceparent") for attempt in outcome.attempts]
    assert len(set(traced)) == number
    assert None not in traced


@pytest.mark.parametrize("cell", INSIDE, ids=str)
def test_interceptors_inside_of_ours(run_cell: RunCell, cell: Cell) -> None:
    assert differences(cell, run_cell(cell, inside)) == []


@pytest.mark.parametrize("cell", CANCELLED, ids=str)
def test_a_cancellation_passes_interceptors_inside_of_ours(run_cell: RunCell, cell: Cell) -> None:
    assert differences(cell, run_cell(cell, inside)) == []


@pytest.mark.parametrize("cell", OUTSIDE, ids=str)
def test_interceptors_outside_of_ours(run_cell: RunCell, cell: Cell) -> None:
    assert seen_differences(cell, run_cell(cell, outside)) == []
