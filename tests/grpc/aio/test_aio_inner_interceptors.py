"""Interceptors of `grpc.aio` inside of ours: they await the status of an attempt, or return a generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, DeadlineExceededError, Pipeline, Retry, Timeout
from tests.grpc.aio.clean import requests_of, run_clean, seen, use, was_cancelled
from tests.grpc.aio.test_calls import HANGS
from tests.grpc.helpers import SOON, Code
from tests.grpc.streaming import ARITIES, Rpc, Shop, method_of, shop

pytestmark = pytest.mark.slow


class Status(grpc.aio.UnaryUnaryClientInterceptor):
    """Awaits the status, as those that record it do."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = await continuation(client_call_details, request)
        await call.code()
        return call


class StatusOfStream(grpc.aio.StreamUnaryClientInterceptor):
    """Awaits the status, too."""

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        call = await continuation(client_call_details, request_iterator)
        await call.code()
        return call


async def passed_on(responses: Any) -> AsyncIterator[Any]:
    async for response in responses:
        yield response


class Generator(grpc.aio.UnaryStreamClientInterceptor):
    """Returns a generator, which has no status and cannot be cancelled."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return passed_on(await continuation(client_call_details, request))


class GeneratorOfStream(grpc.aio.StreamStreamClientInterceptor):
    """Returns a generator, too."""

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return passed_on(await continuation(client_call_details, request_iterator))


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({**HANGS}) as server:
        yield server


def channel_of(target: str, *policies: Any) -> Any:
    inner: list[Any] = [Status(), StatusOfStream(), Generator(), GeneratorOfStream()]
    return resilience.grpc.aio.insecure_channel(target, Pipeline(*policies), idempotent=True, interceptors=inner)


arities = pytest.mark.parametrize("arity", ARITIES)


@arities
def test_a_cancellation_reaches_the_server(server: Shop, arity: str) -> None:
    bulkhead = Bulkhead(1)

    async def body(channel: Any) -> None:
        using = asyncio.create_task(use(method_of(channel, arity)(requests_of(arity)), arity))
        await seen(server)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert await was_cancelled(server)
        assert bulkhead.in_flight == 0

    run_clean(lambda target: channel_of(target, Retry(), bulkhead), server, body)


@arities
def test_a_deadline_is_no_cancellation(server: Shop, arity: str) -> None:
    """To cancel what an interceptor awaits must not cancel the call that it intercepts."""

    async def body(channel: Any) -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await use(method_of(channel, arity)(requests_of(arity)), arity)
        error: Any = caught.value
        assert error.code() is Code.DEADLINE_EXCEEDED
        assert await was_cancelled(server)

    run_clean(lambda target: channel_of(target, Timeout(0.2), Retry()), server, body)


@arities
def test_an_attempt_that_takes_too_long_is_retried(server: Shop, arity: str) -> None:
    async def body(channel: Any) -> None:
        with pytest.raises(DeadlineExceededError):
            await use(method_of(channel, arity)(requests_of(arity)), arity)
        assert [await was_cancelled(server, number) for number in (1, 2)] == [True, True]

    run_clean(lambda target: channel_of(target, Timeout(10.0), Retry(2, wait=SOON), Timeout(0.2)), server, body)
    assert len(server.rpcs) == 2


@arities
def test_an_attempt_that_fails_is_retried(server: Shop, arity: str) -> None:
    def handler(rpc: Rpc, request: Any) -> bytes:
        if rpc.number < 3:
            rpc.fail()
        return b"ok"

    def streaming(rpc: Rpc, request: Any) -> Iterator[bytes]:
        yield handler(rpc, request)

    server.handlers[arity] = streaming if arity.endswith("stream") else handler

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(requests_of(arity))
        assert await use(call, arity) == [b"ok"]
        assert (await call.code(), call.done()) == (Code.OK, True)

    run_clean(lambda target: channel_of(target, Retry(3, wait=SOON)), server, body)
    assert len(server.rpcs) == 3
