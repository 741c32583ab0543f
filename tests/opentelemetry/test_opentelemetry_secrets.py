"""No secret gets into log records, events, spans, events of spans, or metrics, wherever calls have them."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry import trace

import resilience.grpc
import resilience.httpx
from resilience import (
    HTTP_FAILURES,
    Bulkhead,
    CircuitBreaker,
    DeadlineExceededError,
    Fallback,
    Hedge,
    Partition,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    logs,
    subscribe,
)
from resilience.testing import FaultyServer, virtual_time
from tests.grpc.helpers import Code
from tests.grpc.servers import OPTIONS, Abort, serving, stub_of
from tests.httpx.helpers import NOW, Script
from tests.httpx.planted import Output, Secrets
from tests.opentelemetry.telemetry import Telemetry
from tests.support.functions import AppError

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class Everything(Output):
    """All that the library writes while it listens, spans and metrics included."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__()
        self._telemetry = telemetry

    @contextmanager
    def listening(self) -> Generator[None]:
        """Take all of that meanwhile."""
        with super().listening():
            yield
        self.texts += [f"span {span.to_json()} {span.name} {span.status.description}" for span in self.spans()]
        for span in self.spans():
            self.texts += [f"span event {event.name} {dict(event.attributes or {})!r}" for event in span.events]
        data = self._telemetry.reader.get_metrics_data()
        assert data is not None
        self.texts.append(f"metrics {data.to_json()}")

    def spans(self) -> list[Any]:
        return self._telemetry.spans()

    def check(self, secrets: Secrets, *said: str) -> None:
        """Check that these words were written, so that it has happened, and that no secret was."""
        missing = [words for words in said if not any(words in text for text in self.texts)]
        assert missing == []
        leaks = secrets.leaks(self.texts)
        assert leaks == []


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture
def output(telemetry: Telemetry, nothing_logged_yet: None, log_interval: None) -> Everything:
    logs.configure(interval=0.0)
    return Everything(telemetry)


PLANTS: dict[str, Callable[[str, Telemetry], object]] = {
    "a log record": lambda secret, telemetry: logs.logger.info("%s", secret),
    "the details of a record": lambda secret, telemetry: logs.logger.info("x", extra={"resilience_x": secret}),
    "a traceback": lambda secret, telemetry: _log_traceback(secret),
    "an event": lambda secret, telemetry: Pipeline[Any](Retry(1)).bind(operation=secret).call(int),
    "the name of a span": lambda secret, telemetry: telemetry.tracer.start_span(secret).end(),
    "an attribute of a span": lambda secret, telemetry: telemetry.tracer.start_span(
        "x", attributes={"a": secret}
    ).end(),
    "the status of a span": lambda secret, telemetry: _end_with_status(secret, telemetry),
    "an event of a span": lambda secret, telemetry: _add_event(secret, telemetry),
    "an exception of a span": lambda secret, telemetry: _record_exception(secret, telemetry),
    "an attribute of a metric": lambda secret, telemetry: (
        telemetry.meter_provider.get_meter("x").create_counter("x").add(1, {"a": secret})
    ),
    "a warning": lambda secret, telemetry: warnings.warn(secret, stacklevel=1),
}


def _log_traceback(secret: str) -> None:
    try:
        raise AppError(secret)
    except AppError:
        logs.logger.exception("x")


def _end_with_status(secret: str, telemetry: Telemetry) -> None:
    span = telemetry.tracer.start_span("x")
    span.set_status(trace.Status(trace.StatusCode.ERROR, secret))
    span.end()


def _add_event(secret: str, telemetry: Telemetry) -> None:
    span = telemetry.tracer.start_span("x")
    span.add_event("x", {"a": f"x {secret} x"})
    span.end()


def _record_exception(secret: str, telemetry: Telemetry) -> None:
    with suppress(AppError), telemetry.tracer.start_as_current_span("x"):
        raise AppError(secret)


@pytest.mark.parametrize("place", PLANTS)
def test_a_planted_leak_is_found(telemetry: Telemetry, output: Everything, secrets: Secrets, place: str) -> None:
    with output.listening():
        Pipeline[Any]().call(int)
        PLANTS[place](secrets["argument"], telemetry)

    with pytest.raises(AssertionError, match="argument"):
        output.check(secrets)


def test_functions(output: Everything, secrets: Secrets) -> None:
    def fails(argument: str, *, keyword: str) -> None:
        raise ConnectionError(f"{argument} {keyword} {secrets['json']}")

    def breaks(argument: str) -> None:
        raise AppError(argument)

    def returns(argument: str) -> str:
        return secrets["answered body"]

    target = secrets.with_user(f"https://quotes.test/?key={secrets['query']}#{secrets['fragment']}")
    given = (secrets["argument"],)
    pipeline = Pipeline[Any](
        Fallback(lambda error: secrets["answered body"], on=RejectedError),
        Retry(2, wait=NOW),
        Partition(lambda: Bulkhead(1), by=lambda call: "tenant", name="keyed"),
        CircuitBreaker(consecutive_failures=8),
        Timeout(5),
        name="functions",
    )
    bound = pipeline.bind(target=target)
    with output.listening():
        with pytest.raises(ConnectionError):
            bound.call(fails, *given, keyword=secrets["keyword argument"])
        with pytest.raises(AppError):
            bound.call(breaks, *given)
        assert bound.call(returns, *given) == secrets["answered body"]
        with pipeline.get(Partition).of("tenant").calling():
            assert bound.call(returns, *given) == secrets["answered body"]
        for _ in range(8):
            with suppress(ConnectionError):
                bound.call(fails, *given, keyword=secrets["keyword argument"])

    output.check(
        secrets,
        *("resilience.retry", "resilience.give_up", "resilience.rejection", "resilience.breaker_change"),
        *("resilience.fallback", "BulkheadFullError", "CircuitOpenError", "resilience_rejections", "AppError"),
    )


def test_deadlines_hedges_listeners_and_generators(output: Everything, secrets: Secrets) -> None:
    calls: list[int] = []

    async def slow(argument: str) -> str:
        calls.append(1)
        await asyncio.sleep(60 if len(calls) != 2 else 0)
        return secrets["answered body"]

    def items(argument: str) -> Generator[str]:
        yield argument
        raise ConnectionError(argument)

    hedged = Pipeline[Any](Timeout(5), Hedge(after=1.0), name="hedged").bind(idempotent=True)
    with virtual_time(), output.listening():
        assert asyncio.run(hedged.acall(slow, secrets["argument"])) == secrets["answered body"]
        with pytest.raises(DeadlineExceededError):
            asyncio.run(hedged.acall(slow, secrets["argument"]))
        with pytest.raises(ConnectionError):
            list(Pipeline[Any](Retry(2), name="items")(items)(secrets["argument"]))

    output.check(secrets, "resilience.hedge", "resilience.timeout", "resilience_hedges", '"outcome": "timed_out"')


CLIENTS = {"sync": httpx.Client, "async": httpx.AsyncClient}


@pytest.mark.parametrize("flavour", CLIENTS)
def test_requests(output: Everything, secrets: Secrets, flavour: str) -> None:
    answers = [secrets.answer(503), httpx.ConnectError(secrets["transport"]), secrets.answer(200), secrets.answer(429)]
    pipeline = Pipeline[Any](Retry(3, wait=NOW), CircuitBreaker(), Timeout(5), name="requests", failures=HTTP_FAILURES)
    idempotency_key = resilience.httpx.IdempotencyKey(hosts=("quotes.test",))

    def attached(transport: Script) -> Any:
        client: Any = CLIENTS[flavour](transport=transport)
        return resilience.httpx.attach(client, pipeline, idempotency_key=idempotency_key)

    async def asynchronously(method: str, url: str, given: dict[str, Any]) -> None:
        async with attached(Script(*answers)) as client:
            await client.request(method, url, **given)

    with output.listening():
        for method, url, given in secrets.requests():
            if flavour == "async":
                asyncio.run(asynchronously(method, url, given))
            else:
                with attached(Script(*answers)) as client:
                    client.request(method, url, **given)

    output.check(secrets, "httpx.Response", "httpx.ConnectError", '"resilience.operation": "PUT"', "quotes.test")


@pytest.mark.slow
def test_requests_to_a_real_server(output: Everything, secrets: Secrets) -> None:
    pipeline = Pipeline[Any](Retry(2, wait=NOW), Timeout(5), name="real requests")
    with FaultyServer() as server, output.listening():
        with resilience.httpx.attach(httpx.Client(), pipeline) as client:
            for path in ("ok", "status/503", "reset", "close"):
                url = secrets.with_user(f"{server.url}/{path}?key={secrets['query']}")
                with suppress(httpx.TransportError):
                    client.get(url, headers=secrets.headers)
        with suppress(httpx.TransportError), resilience.httpx.attach(httpx.Client(), pipeline) as client:
            client.get(secrets.with_user(server.refused_url), headers=secrets.headers)

    output.check(secrets, "httpx.ReadError", "httpx.ConnectError", "resilience.give_up")


@pytest.mark.slow
def test_rpcs_to_a_real_server(output: Everything, secrets: Secrets) -> None:
    pipeline = Pipeline[Any](Retry(2, wait=NOW), Timeout(5), name="rpcs")
    metadata = [("authorization", f"Bearer {secrets['authorization']}"), ("x-trace", secrets["other header"])]
    request = secrets["bytes"].encode()

    async def aio(target: str) -> None:
        async with resilience.grpc.aio.insecure_channel(target, pipeline, idempotent="*", options=OPTIONS) as channel:
            await stub_of(channel, "Get")(request, metadata=metadata)

    with serving() as service:
        service.script("Get", Abort(Code.UNAVAILABLE, secrets["answered body"]))
        open_channel = partial(resilience.grpc.insecure_channel, idempotent="*", options=OPTIONS)
        with output.listening(), open_channel(service.target, pipeline) as channel:
            with pytest.raises(grpc.RpcError):
                stub_of(channel, "Get")(request, metadata=metadata)
            with pytest.raises(grpc.RpcError):
                asyncio.run(aio(service.target))

    output.check(secrets, "/shop.Shop/Get", "resilience.give_up", '"resilience.outcome": "failed"')


def test_a_listener_that_raises_is_logged_without_what_the_call_was_about(
    output: Everything, secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: object) -> None:
        raise AppError("of the listener")

    def fails(argument: str) -> None:
        raise ConnectionError(argument)

    pipeline = Pipeline[Any](Retry(1), name="broken")
    with output.listening(), subscribe(broken), caplog.at_level(logging.ERROR), pytest.raises(ConnectionError):
        pipeline.call(fails, secrets["argument"])

    output.check(secrets, "of the listener")
    assert [record.getMessage().split()[0] for record in caplog.records] == ["listener"]
