"""Guarded channels under the instrumentation of OpenTelemetry, against a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation import grpc as instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

import resilience.grpc
from resilience import Pipeline, Retry, Timeout, backoff
from tests.grpc.helpers import UNAVAILABLE, future, plain, with_call
from tests.grpc.servers import OPTIONS, Service, serving, stub_of, wait_until
from tests.opentelemetry.telemetry import Telemetry, attributes, events, is_child

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:there are two pipelines")]
OTEL: Any = instrumentation  # untyped


@pytest.fixture
def pipeline() -> Pipeline[Any]:
    return Pipeline[Any](Retry(3, wait=backoff.fixed(0.001)), Timeout(10), name="shop")


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as running:
        yield running


@pytest.fixture
def instrumented(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """A process in which the synchronous API is instrumented."""
    # The instrumentation asks for the global provider, which can be set only once.
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: telemetry.tracer_provider)
    instrumentor = OTEL.GrpcInstrumentorClient()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider, skip_dep_check=True)
    try:
        yield telemetry
    finally:
        instrumentor.uninstrument()


def check(telemetry: Telemetry, service: Service) -> None:
    """Check the spans of a call with three attempts, and what each of them has sent."""
    assert wait_until(lambda: len(telemetry.spans()) == 5)
    spans = telemetry.spans()
    (whole,) = [span for span in spans if "resilience.outcome" in attributes(span)]
    clients = sorted((span for span in spans if span.kind is SpanKind.CLIENT), key=started)

    assert is_child(whole, telemetry.span("caller"))
    assert [is_child(client, whole) for client in clients] == [True] * 3
    assert [client.status.status_code for client in clients] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [name for client in clients for name in attributes(client) if name.startswith("http.")] == []
    assert attributes(whole) == {
        "resilience.pipeline": "shop",
        "resilience.operation": "/shop.Shop/Get",
        "resilience.outcome": "ok",
        "resilience.attempts": 3,
    }
    assert [name for name, _ in events(whole)] == ["resilience.retry", "resilience.retry"]
    sent = [seen.metadata["traceparent"].split("-")[1:3] for seen in service.seen]
    contexts = [client.get_span_context() for client in clients]
    assert sent == [
        [trace.format_trace_id(one.trace_id), trace.format_span_id(one.span_id)] for one in contexts if one is not None
    ]


def started(span: ReadableSpan) -> int:
    return span.start_time or 0


@pytest.mark.parametrize("way", [plain, with_call, future])
def test_each_attempt_has_a_client_span_below_that_of_the_call(
    instrumented: Telemetry, service: Service, pipeline: Pipeline[Any], way: Any
) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"shoe")
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent="*/Get", options=OPTIONS)

    with channel, instrumented.tracer.start_as_current_span("caller") as caller:
        assert way(stub_of(channel, "Get"), b"secret") == b"shoe"
        assert trace.get_current_span() is caller

    check(instrumented, service)


def test_interceptors_of_aio_that_are_given_to_the_channel(
    telemetry: Telemetry, service: Service, pipeline: Pipeline[Any]
) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"shoe")
    inside = OTEL.aio_client_interceptors(tracer_provider=telemetry.tracer_provider)

    async def main() -> None:
        async with resilience.grpc.aio.insecure_channel(
            service.target, pipeline, idempotent="*/Get", options=OPTIONS, interceptors=inside
        ) as channel:
            with telemetry.tracer.start_as_current_span("caller") as caller:
                assert await stub_of(channel, "Get")(b"secret") == b"shoe"
                assert trace.get_current_span() is caller

    asyncio.run(main())

    check(telemetry, service)


def test_an_rpc_that_fails_for_good(telemetry: Telemetry, service: Service, pipeline: Pipeline[Any]) -> None:
    service.script("Get", UNAVAILABLE)
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent="*/Get", options=OPTIONS)

    with channel, pytest.raises(grpc.RpcError):
        stub_of(channel, "Get")(b"secret")

    (whole,) = telemetry.spans()
    assert attributes(whole)["resilience.outcome"] == "failed"
    assert attributes(whole)["error.type"].startswith(("grpc.", "resilience."))
    assert whole.status.status_code is StatusCode.ERROR
    assert whole.status.description is None
    assert [name for name, _ in events(whole)] == ["resilience.retry", "resilience.retry", "resilience.give_up"]
    assert "on purpose" not in whole.to_json()


def test_the_span_ends_with_the_stream_of_responses(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Timeout(30), Retry(2), name="shop")
    is_read = threading.Event()

    def stream(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"one"
        is_read.wait(10)
        yield b"two"

    handler: Any = grpc.unary_stream_rpc_method_handler(stream)
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", {"List": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with resilience.grpc.insecure_channel(f"127.0.0.1:{port}", pipeline, options=OPTIONS) as channel:
            stubs: Any = channel
            responses = stubs.unary_stream("/shop.Shop/List")(b"secret")
            assert next(responses) == b"one"
            assert trace.get_current_span() is trace.INVALID_SPAN
            assert telemetry.spans() == []
            is_read.set()
            assert list(responses) == [b"two"]
            assert wait_until(lambda: len(telemetry.spans()) == 1)
    finally:
        server.stop(0).wait()

    assert attributes(telemetry.spans()[0])["resilience.outcome"] == "ok"
