"""The requests of attempts of `grpc.aio`: an iterator is read once, and no request is lost or doubled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, CircuitBreaker, CircuitOpenError, Pipeline, Retry, Timeout, backoff
from resilience.events import RetryScheduled
from resilience.grpc._requests import REPLAY_BYTES, RequestsSpent
from resilience.grpc.aio._requests import AioReplayedRequests
from tests.grpc.aio.clean import run_clean, use, was_cancelled
from tests.grpc.helpers import SOON, Code, until
from tests.grpc.streaming import PATH, Rpc, Shop, method_of, shop
from tests.grpc.test_requests import Int32Value, fail_until
from tests.support.timing import at_most

STREAMED = ["stream_unary", "stream_stream"]
arities = pytest.mark.parametrize("arity", STREAMED)
sources = pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
slow = pytest.mark.slow
LARGE = b"x" * (REPLAY_BYTES + 1)


async def slowly(*requests: bytes) -> AsyncIterator[bytes]:
    for request in requests:
        await asyncio.sleep(0)
        yield request


def source(is_async: bool, *requests: bytes) -> Any:
    """An iterator over requests."""
    return slowly(*requests) if is_async else iter(requests)


async def taken(requests: AsyncIterator[bytes]) -> list[bytes]:
    return [request async for request in requests]


@sources
def test_each_attempt_gets_all_messages(is_async: bool) -> None:
    async def main() -> None:
        requests = AioReplayedRequests(source(is_async, b"0", b"1", b"2"))
        first = requests.for_attempt()
        assert [await anext(first), await anext(first)] == [b"0", b"1"]
        requests.end_attempt()
        assert await taken(first) == []
        assert await taken(requests.for_attempt()) == [b"0", b"1", b"2"]
        assert await taken(requests.for_attempt()) == [b"0", b"1", b"2"]

    asyncio.run(main())


@sources
def test_what_is_too_large_is_not_kept(is_async: bool) -> None:
    async def main() -> None:
        requests = AioReplayedRequests(source(is_async, LARGE, b"1", b"2"))
        sending = requests.for_attempt()
        assert await anext(sending) == LARGE
        assert not requests.replayable
        assert await taken(sending) == [b"1", b"2"]
        with pytest.raises(RequestsSpent):
            requests.for_attempt()

    asyncio.run(main())


def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    """As gRPC cancels the one of an attempt that has failed."""
    go_on = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield b"0"
        await go_on.wait()
        yield LARGE

    async def main() -> None:
        requests = AioReplayedRequests(waiting())
        first = requests.for_attempt()
        assert await anext(first) == b"0"
        reader = asyncio.create_task(taken(first))
        await asyncio.sleep(0)
        requests.end_attempt()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        go_on.set()
        assert await taken(requests.for_attempt()) == [b"0", LARGE]

    asyncio.run(main())


@sources
def test_an_iterator_that_raises_does_so_in_every_attempt(is_async: bool) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"0"
        raise ValueError("mine")

    def broken_too() -> Iterator[bytes]:
        yield b"0"
        raise ValueError("mine")

    async def main() -> None:
        requests = AioReplayedRequests(broken() if is_async else broken_too())
        for _ in range(2):
            with pytest.raises(ValueError, match="mine"):
                await taken(requests.for_attempt())

    asyncio.run(main())


@slow
def test_to_close_ends_a_read_that_is_under_way() -> None:
    closed: list[bool] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            closed.append(True)

    async def main() -> None:
        requests = AioReplayedRequests(endless())
        reader = asyncio.create_task(taken(requests.for_attempt()))
        await asyncio.sleep(0.01)
        requests.close()
        await asyncio.sleep(0.01)
        reader.cancel()
        assert closed == [True]

    asyncio.run(main())


# Real servers.


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({}) as server:
        yield server


def retrying(target: str) -> Any:
    return resilience.grpc.aio.insecure_channel(target, Pipeline(Retry(wait=SOON)), idempotent=True)


@slow
@arities
@sources
@pytest.mark.parametrize("after", [0, 1, 3, None])
def test_the_server_sees_all_requests_in_each_attempt(
    server: Shop, arity: str, is_async: bool, after: int | None
) -> None:
    server.handlers.update(fail_until(3, after))

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(source(is_async, b"0", b"1", b"2", b"3"))
        assert await use(call, arity) == [b"0|1|2|3"]

    run_clean(retrying, server, body)
    assert len(server.rpcs) == 3


@slow
@arities
def test_an_attempt_that_does_not_need_the_next_request_does_not_wait_for_it(server: Shop, arity: str) -> None:
    def first_only(rpc: Rpc, requests: Any) -> bytes:
        request: bytes = next(requests)
        if rpc.number == 1:
            rpc.fail()
        return request

    def streamed(rpc: Rpc, requests: Any) -> Iterator[bytes]:
        yield first_only(rpc, requests)

    server.handlers.update(stream_unary=first_only, stream_stream=streamed)

    async def one_then_wait() -> AsyncIterator[bytes]:
        yield b"0"
        await asyncio.Event().wait()

    async def body(channel: Any) -> None:
        started = time.monotonic()
        assert await use(method_of(channel, arity)(one_then_wait()), arity) == [b"0"]
        assert time.monotonic() - started <= at_most(1.0)

    run_clean(retrying, server, body)
    assert len(server.rpcs) == 2


@slow
@arities
def test_a_late_request_that_is_too_large_reaches_the_second_attempt(server: Shop, arity: str) -> None:
    def joined(rpc: Rpc, requests: Any) -> bytes:
        if rpc.number == 1:
            next(requests)
            rpc.fail()
        return b"|".join(requests)

    def streamed(rpc: Rpc, requests: Any) -> Iterator[bytes]:
        yield joined(rpc, requests)

    server.handlers.update(stream_unary=joined, stream_stream=streamed)
    pipeline = Pipeline(Retry(wait=backoff.fixed(0.2)))

    async def body(channel: Any) -> None:
        go_on = asyncio.Event()
        pipeline.subscribe(lambda event: go_on.set(), events=(RetryScheduled,))

        async def requests() -> AsyncIterator[bytes]:
            yield b"0"
            await go_on.wait()
            yield LARGE

        assert await use(method_of(channel, arity)(requests()), arity) == [b"0|" + LARGE]

    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True), server, body)


@slow
@arities
def test_what_was_too_large_is_not_sent_again(server: Shop, arity: str) -> None:
    server.handlers.update(fail_until(2))

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(iter([LARGE, b"y"]))
        with pytest.raises(grpc.RpcError):
            await use(call, arity)
        assert await call.code() is Code.UNAVAILABLE

    run_clean(retrying, server, body)
    assert len(server.rpcs) == 1


@slow
@arities
def test_an_iterator_that_never_ends_is_read_until_the_deadline(server: Shop, arity: str) -> None:
    server.handlers.update(fail_until(0))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.001)
            yield b"x" * 100

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(endless())
        with pytest.raises(grpc.RpcError):
            await use(call, arity)
        assert await call.code() is Code.DEADLINE_EXCEEDED
        assert await was_cancelled(server)

    run_clean(
        lambda target: resilience.grpc.aio.insecure_channel(target, Pipeline(Timeout(0.3), Retry()), idempotent=True),
        server,
        body,
    )


@slow
@arities
@sources
def test_an_iterator_that_raises_is_no_failure_of_the_server(server: Shop, arity: str, is_async: bool) -> None:
    """A bare call would raise a CancelledError, without the cause."""
    server.handlers.update(fail_until(0))
    breaker, bulkhead = CircuitBreaker(), Bulkhead(5)

    async def broken() -> AsyncIterator[bytes]:
        yield b"0"
        raise ValueError("mine")

    def broken_too() -> Iterator[bytes]:
        yield b"0"
        raise ValueError("mine")

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(broken() if is_async else broken_too())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await use(call, arity)
        assert (caught.value.code(), caught.value.details()) == (Code.UNKNOWN, "Exception iterating requests!")
        assert isinstance(caught.value.__cause__, ValueError)
        assert await call.code() is Code.UNKNOWN

    pipeline = Pipeline(Retry(wait=SOON), bulkhead, breaker)
    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True), server, body)
    assert (breaker.snapshot()["calls"], bulkhead.in_flight) == (0, 0)
    assert len(server.rpcs) <= 1


@slow
@arities
def test_a_rejected_call_reads_no_request(server: Shop, arity: str) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    read: list[int] = []

    async def requests() -> AsyncIterator[bytes]:
        read.append(0)
        yield b"0"

    async def body(channel: Any) -> None:
        with pytest.raises(CircuitOpenError):
            await use(method_of(channel, arity)(requests()), arity)

    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, Pipeline(breaker)), server, body)
    assert (read, server.rpcs) == ([], [])


@slow
def test_a_status_that_is_lost_while_requests_are_written_is_retried_and_not_counted(server: Shop) -> None:
    """A bare call has the code INTERNAL instead of the status of the server now and then."""

    def handler(rpc: Rpc, requests: Any) -> Iterator[bytes]:
        next(requests)
        if rpc.number % 2:
            rpc.fail(Code.ABORTED)  # which is not counted
        yield b"|".join(requests)

    server.handlers["stream_stream"] = handler
    breaker = CircuitBreaker()

    async def body(channel: Any) -> None:
        for _ in range(100):
            call = method_of(channel, "stream_stream")(iter([b"0", b"1", b"2", b"3"]))
            assert await use(call, "stream_stream") == [b"1|2|3"]

    pipeline = Pipeline(Retry(wait=backoff.none(), budget=None), breaker)
    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True), server, body)
    assert breaker.snapshot()["failures"] == 0


@slow
def test_a_call_sends_the_message_as_it_was_when_it_was_made(server: Shop) -> None:
    server.handlers["unary_unary"] = lambda rpc, request: request
    bulkhead = Bulkhead(1, queue=50, max_wait=20.0)

    async def body(channel: Any) -> None:
        get: Any = channel.unary_unary(
            PATH + "unary_unary",
            request_serializer=Int32Value.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )
        message = Int32Value()
        calls: list[Any] = []
        async with bulkhead:
            for number in range(10):
                message.value = number
                calls.append(get(message))
                await asyncio.sleep(0)  # the task of the call has begun
            assert await until(lambda: bulkhead.queued == 10)
        assert [(await call).value for call in calls] == [*range(10)]

    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, Pipeline(bulkhead)), server, body)
