"""Server interceptors together with others, such as those of OpenTelemetry, and with grpc's experimental handlers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_server_interceptor, server_interceptor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilience import CircuitOpenError, remaining
from tests.grpc.inbound import PATIENCE, PUSHBACK, Code, Result, each_arity, interceptor_of, service_of, serving

pytestmark = pytest.mark.slow


class Traced:
    """A tracer provider, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def interceptor(self, flavour: str) -> Any:
        make: Any = server_interceptor if flavour == "sync" else aio_server_interceptor
        return make(self.provider)

    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]


@each_arity
@pytest.mark.parametrize("flavour", ["sync", "aio"])
@pytest.mark.parametrize("place", ["outside", "inside"])
def test_with_opentelemetry(arity: str, flavour: str, place: str) -> None:
    traced = Traced()
    inside: list[Any] = []

    def step(number: int, context: Any) -> bytes:
        inside.append((remaining(), trace.get_current_span().is_recording()))
        context.set_trailing_metadata((("a", "1"),))
        raise CircuitOpenError("s3cret")

    ours, theirs = interceptor_of(flavour), traced.interceptor(flavour)
    chain = [theirs, ours] if place == "outside" else [ours, theirs]
    with serving(flavour, step, interceptors=chain) as served:
        result = served.call(arity, timeout=60.0)

    assert inside == [(pytest.approx(60.0, abs=PATIENCE), True)]
    assert traced.names() == [f"/x.X/{arity}"]
    assert (result.messages, result.code) == ([], Code.UNAVAILABLE)
    assert result.details == "a dependency of this service is unavailable"
    assert sorted(result.trailing) == [("a", "1"), (PUSHBACK, "-1")]


class Adding(grpc.ServerInterceptor):
    """Adds a letter to responses."""

    def __init__(self, letter: str) -> None:
        self._letter = letter.encode()

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None

        def behavior(request: Any, context: Any) -> bytes:
            response: bytes = handler.unary_unary(request, context)
            return response + self._letter

        return grpc.unary_unary_rpc_method_handler(behavior)


class AioAdding(grpc.aio.ServerInterceptor):
    """Adds a letter to responses."""

    def __init__(self, letter: str) -> None:
        self._letter = letter.encode()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None

        async def behavior(request: Any, context: Any) -> bytes:
            response: bytes = await handler.unary_unary(request, context)
            return response + self._letter

        return grpc.unary_unary_rpc_method_handler(behavior)


@pytest.mark.parametrize("flavour", ["sync", "aio"])
def test_between_two_others(flavour: str) -> None:
    def step(number: int, context: Any) -> bytes:
        return b"no" if remaining() is None else b"yes"

    adding = Adding if flavour == "sync" else AioAdding
    chain = [adding("b"), interceptor_of(flavour, trust=True, min_remaining=0.5), adding("a")]
    with serving(flavour, step, interceptors=chain) as served:
        assert served.call("unary_unary", timeout=60.0) == Result([b"yesab"], Code.OK, "")
        assert served.call("unary_unary", name="nothing").code is Code.UNIMPLEMENTED


def test_a_handler_that_sends_later_passes_through_unchanged() -> None:
    """As that of the health service, which keeps no thread while it watches."""
    send: list[Any] = []
    watching = threading.Event()

    def watch(request: Any, context: Any, send_response: Any) -> None:
        send.extend([send_response, remaining()])
        watching.set()

    watch.experimental_non_blocking = True  # type: ignore[attr-defined]
    with serving("sync", services=[service_of({"unary_stream": watch})], trust=True, min_remaining=0.5) as served:
        responses = served.start("unary_stream", timeout=60.0)
        assert watching.wait(PATIENCE)
        for response in (b"1", b"2", None):
            send[0](response)
        assert list(responses) == [b"1", b"2"]

    assert send[1] is None


def test_a_handler_with_threads_of_its_own_keeps_them() -> None:
    def where(request: Any, context: Any) -> bytes:
        return f"{threading.current_thread().name} {remaining() is not None}".encode()

    with ThreadPoolExecutor(1, "own") as own:
        where.experimental_thread_pool = own  # type: ignore[attr-defined]
        with serving("sync", services=[service_of({"unary_unary": where})]) as served:
            assert served.call("unary_unary", timeout=60.0).messages == [b"own_0 True"]
