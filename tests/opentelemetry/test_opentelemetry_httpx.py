"""Guarded clients of httpx under the instrumentation of OpenTelemetry, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import trio
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.trace import StatusCode

import resilience.httpx
from resilience import Hedge, Pipeline, Retry, Timeout, backoff
from resilience.testing import FaultyServer
from tests.opentelemetry.telemetry import Telemetry, attributes, events, is_child

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:there are two pipelines")]
SOON = backoff.fixed(0.001)


@pytest.fixture
def instrumented(telemetry: Telemetry) -> Iterator[Telemetry]:
    instrumentor: Any = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider, skip_dep_check=True)
    try:
        yield telemetry
    finally:
        instrumentor.uninstrument()


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


def plain(pipeline: Pipeline[Any], url: str) -> httpx.Response:
    with resilience.httpx.attach(httpx.Client(), pipeline) as client:
        return client.get(url)


async def fetch(pipeline: Pipeline[Any], url: str) -> httpx.Response:
    async with resilience.httpx.attach(httpx.AsyncClient(), pipeline) as client:
        return await client.get(url)


def on_asyncio(pipeline: Pipeline[Any], url: str) -> httpx.Response:
    return asyncio.run(fetch(pipeline, url))


def on_trio(pipeline: Pipeline[Any], url: str) -> httpx.Response:
    return trio.run(fetch, pipeline, url)


each_client = pytest.mark.parametrize("get", [plain, on_asyncio, on_trio])


@each_client
def test_each_attempt_has_a_client_span_below_that_of_the_call(
    instrumented: Telemetry, server: FaultyServer, get: Callable[[Pipeline[Any], str], httpx.Response]
) -> None:
    pipeline = Pipeline[Any](Retry(3, wait=SOON), Timeout(10), name="quotes")

    with instrumented.tracer.start_as_current_span("caller"):
        assert get(pipeline, f"{server.url}/fail-then-ok?failures=2&fault=status/503&key=secret").status_code == 200

    *clients, whole, caller = instrumented.spans()
    assert is_child(whole, caller)
    assert [is_child(client, whole) for client in clients] == [True] * 3
    assert [attributes(client).get("http.request.resend_count") for client in clients] == [None, 1, 2]
    assert whole.name == "GET"
    assert attributes(whole) == {
        "resilience.pipeline": "quotes",
        "resilience.operation": "GET",
        "resilience.outcome": "ok",
        "resilience.attempts": 3,
    }
    assert [(name, told["error.type"]) for name, told in events(whole)] == [("resilience.retry", "httpx.Response")] * 2

    sent = [request.headers["traceparent"].split("-") for request in server.requests]
    contexts = [client.get_span_context() for client in clients]
    assert [(trace_id, span_id) for _, trace_id, span_id, _ in sent] == [
        (trace.format_trace_id(one.trace_id), trace.format_span_id(one.span_id)) for one in contexts if one is not None
    ]


@each_client
def test_a_connection_that_fails_for_good(
    instrumented: Telemetry, server: FaultyServer, get: Callable[[Pipeline[Any], str], httpx.Response]
) -> None:
    with pytest.raises(httpx.ConnectError):
        get(Pipeline[Any](Retry(2, wait=SOON), name="quotes"), server.refused_url)

    *clients, whole = instrumented.spans()
    assert len(clients) == 2
    assert attributes(whole)["error.type"] == "httpx.ConnectError"
    assert whole.status.status_code is StatusCode.ERROR
    assert whole.status.description is None
    assert [name for name, _ in events(whole)] == ["resilience.retry", "resilience.give_up"]


def test_the_span_ends_with_the_body(instrumented: Telemetry, server: FaultyServer) -> None:
    pipeline = Pipeline[Any](Retry(2, wait=SOON), name="quotes")
    with resilience.httpx.attach(httpx.Client(), pipeline) as client:
        with client.stream("GET", f"{server.url}/drip?size=2") as response:
            assert trace.get_current_span() is trace.INVALID_SPAN
            assert [span for span in instrumented.spans() if "resilience.outcome" in attributes(span)] == []
            response.read()
        (whole,) = [span for span in instrumented.spans() if "resilience.outcome" in attributes(span)]

    assert attributes(whole)["resilience.outcome"] == "ok"


def test_the_attempts_of_a_hedge(instrumented: Telemetry, server: FaultyServer) -> None:
    pipeline = Pipeline[Any](Hedge(after=0.0), Timeout(10), name="quotes")

    assert on_asyncio(pipeline, f"{server.url}/ok").status_code == 200

    (whole,) = [span for span in instrumented.spans() if "resilience.outcome" in attributes(span)]
    clients = [span for span in instrumented.spans() if span is not whole]
    assert clients
    assert all(is_child(client, whole) for client in clients)
    assert "resilience.hedge" in [name for name, _ in events(whole)]
