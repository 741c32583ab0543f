"""`wait_for_connection` of calls of `grpc.aio` with streams: an attempt that fails is not the end of the RPC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience._call.caller import Caller
from resilience.events import RetryScheduled
from resilience.testing import Recorder
from tests.grpc.helpers import SOON, Code
from tests.grpc.servers import OPTIONS

pytestmark = pytest.mark.slow

METHOD = "/shop.Shop/Watch"


@pytest.fixture
def port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


@pytest.fixture
def server(port: int) -> Iterator[grpc.Server]:
    """A server at that port that is not started yet, and that answers with its request twice."""

    def watch(request: bytes, context: object) -> Iterator[bytes]:
        yield request
        yield request

    handlers: dict[str, Any] = {"Watch": grpc.unary_stream_rpc_method_handler(watch)}
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
    yield server
    server.stop(0).wait()


def run(port: int, pipeline: Caller[Any], body: Callable[[Any], Any]) -> None:
    async def main() -> None:
        target = f"127.0.0.1:{port}"
        async with resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True, options=OPTIONS) as channel:
            await asyncio.wait_for(body(channel.unary_stream(METHOD)), 20.0)

    asyncio.run(main())


def test_it_waits_for_the_attempt_that_reaches_the_server(port: int, server: grpc.Server) -> None:
    pipeline = Pipeline(Retry(50, wait=backoff.fixed(0.1), budget=None))

    async def body(watch: Any) -> None:
        call = watch(b"x")
        await call.wait_for_connection()
        assert [message async for message in call] == [b"x", b"x"]
        assert await call.code() is Code.OK

    def start(event: object) -> None:
        if not started:
            started.append(server.add_insecure_port(f"127.0.0.1:{port}"))
            server.start()

    started: list[int] = []
    with pipeline.subscribe(start, events=[RetryScheduled]):
        run(port, pipeline, body)
    assert started == [port]


def test_it_raises_the_error_of_the_last_attempt(port: int) -> None:
    pipeline = Pipeline(Retry(3, wait=SOON))

    async def body(watch: Any) -> None:
        call = watch(b"x")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.wait_for_connection()
        assert caught.value.code() is Code.UNAVAILABLE
        assert len(recorder.of(RetryScheduled)) == 2
        assert await call.code() is Code.UNAVAILABLE

    with Recorder(pipeline) as recorder:
        run(port, pipeline, body)


def test_attempts_that_are_cut_are_not_its_cancellation(port: int) -> None:
    pipeline = Pipeline(Retry(2, wait=SOON), Timeout(0.1))

    async def body(watch: Any) -> None:
        with pytest.raises(DeadlineExceededError):
            await watch(b"x", wait_for_ready=True).wait_for_connection()

    with Recorder(pipeline) as recorder:
        run(port, pipeline, body)
    assert len(recorder.of(RetryScheduled)) == 1


def test_to_cancel_it_raises_a_cancellation(port: int) -> None:
    async def body(watch: Any) -> None:
        waiting = asyncio.ensure_future(watch(b"x", wait_for_ready=True).wait_for_connection())
        await asyncio.wait({waiting}, timeout=0.1)
        assert waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(port, Pipeline(Retry(2, wait=SOON)), body)
