"""Guarded channels under the instrumentation of OpenTelemetry, which wraps channels of grpc, inside it and outside it.

The cells of the table say what is expected, but for what the interceptors of OpenTelemetry take away from everybody:
response streams that they have wrapped have neither a code nor metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.instrumentation.grpc import (
    GrpcAioInstrumentorClient,
    GrpcInstrumentorClient,
    aio_client_interceptors,
    client_interceptor,
)
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import resilience.grpc
from resilience import Pipeline
from tests.grpc.server_process import SERVICE
from tests.grpc.servers import OPTIONS, wait_until
from tests.grpc.table import CELLS, Cell
from tests.grpc.table_calls import RunCell, guarded_channel
from tests.grpc.table_checks import seen_differences

pytestmark = pytest.mark.slow

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
OWN = [cell for cell in CELLS if cell.name in ROWS and cell.server == ("aio" if cell.way.startswith("aio") else "sync")]
SYNC = [cell for cell in OWN if not cell.way.startswith("aio")]
AIO = [cell for cell in OWN if cell.way.startswith("aio")]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of an instrumented process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The synchronous instrumentation asks for the global provider, which can be set only once.
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    instrumentors = [GrpcInstrumentorClient(), GrpcAioInstrumentorClient()]
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
        return grpc.aio.insecure_channel(target, OPTIONS, interceptors=[*ours, *aio_client_interceptors()])
    channel = intercept_channel(grpc.insecure_channel(target, OPTIONS), client_interceptor())
    return grpc.intercept_channel(channel, *resilience.grpc.client_interceptors(pipeline, idempotent=idempotent))


def outside(cell: Cell, target: str, pipeline: Pipeline[Any]) -> Any:
    """Return a channel whose interceptors of OpenTelemetry are outside of ours: they see one call."""
    idempotent = cell.scenario.idempotent
    if cell.way.startswith("aio"):
        ours = resilience.grpc.aio_client_interceptors(pipeline, idempotent=idempotent)
        return grpc.aio.insecure_channel(target, OPTIONS, interceptors=[*aio_client_interceptors(), *ours])
    ours = resilience.grpc.client_interceptors(pipeline, idempotent=idempotent)
    return intercept_channel(
        grpc.intercept_channel(grpc.insecure_channel(target, OPTIONS), *ours), client_interceptor()
    )


@pytest.mark.parametrize("cell", OWN, ids=str)
def test_a_channel_that_is_made_in_an_instrumented_process(
    run_cell: RunCell, spans: InMemorySpanExporter, cell: Cell
) -> None:
    outcome = run_cell(cell, guarded_channel)
    assert seen_differences(cell, outcome) == []
    # The synchronous instrumentation is inside of our interceptors, that of aio comes before all interceptors.
    number = 1 if cell.way.startswith("aio") else cell.expected.calls
    assert wait_until(lambda: len(spans.get_finished_spans()) == number)
    assert {span.name for span in spans.get_finished_spans()} == {f"{SERVICE}{cell.arity}"}
    traced = [dict(attempt.metadata).get("traceparent") for attempt in outcome.attempts]
    assert len(set(traced)) == number
    assert None not in traced


@pytest.mark.parametrize("cell", OWN, ids=str)
@pytest.mark.parametrize("opener", [inside, outside])
def test_interceptors_that_are_added_by_hand(run_cell: RunCell, opener: Any, cell: Cell) -> None:
    assert seen_differences(cell, run_cell(cell, opener)) == []
