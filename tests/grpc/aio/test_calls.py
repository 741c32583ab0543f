"""Calls of `grpc.aio` with streams: they behave as those of grpc, whatever the server and the caller do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    Pipeline,
    Retry,
    Timeout,
)
from tests.grpc.aio.clean import requests_of, run_clean, seen, use, was_cancelled
from tests.grpc.helpers import SOON, Code, until
from tests.grpc.streaming import ARITIES, Rpc, Shop, method_of, shop
from tests.grpc.test_stream_scoring import never_open, score
from tests.support.timing import at_most

pytestmark = pytest.mark.slow

Make = Callable[[str], Any]


def plain(target: str) -> Any:
    return grpc.aio.insecure_channel(target)


def guarded(target: str) -> Any:
    return resilience.grpc.aio.insecure_channel(target, Pipeline(Retry(wait=SOON)), idempotent=True)


def through(*policies: Any, **kwargs: Any) -> Make:
    return lambda target: resilience.grpc.aio.insecure_channel(target, Pipeline(*policies), **kwargs)


both = pytest.mark.parametrize("make", [plain, guarded])
"""What holds for a guarded channel is what holds for one of grpc."""
STREAMED = ["stream_unary", "stream_stream"]


def hang(rpc: Rpc, request: Any) -> bytes:
    rpc.wait()
    return b""


def hang_streaming(rpc: Rpc, request: Any) -> Iterator[bytes]:
    yield hang(rpc, request)


def two_then_hang(rpc: Rpc, request: Any) -> Iterator[bytes]:
    yield b"0"
    yield b"1"
    rpc.wait()


def echo(rpc: Rpc, requests: Any) -> Iterator[bytes]:
    rpc.context.send_initial_metadata((("room", "7"),))
    yield from requests


def join(rpc: Rpc, requests: Any) -> bytes:
    return b"|".join(rpc.read(requests))


HANGS = {"unary_unary": hang, "stream_unary": hang, "unary_stream": hang_streaming, "stream_stream": hang_streaming}


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({}) as server:
        yield server


@both
@pytest.mark.parametrize("arity", ARITIES)
def test_who_waits_for_the_status_may_be_cancelled_without_the_rpc(server: Shop, make: Make, arity: str) -> None:
    server.handlers.update(HANGS)

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(requests_of(arity))
        await seen(server)
        for wait in (call.code, call.details, call.initial_metadata, call.trailing_metadata):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait(), 0.02)
            assert (call.done(), call.cancelled()) == (False, False)
        assert not server.rpcs[0].ended.is_set()
        assert call.cancel()
        assert await call.code() is Code.CANCELLED
        assert await was_cancelled(server)

    run_clean(make, server, body)


@both
@pytest.mark.parametrize("arity", ARITIES)
def test_a_timeout_of_asyncio_ends_the_rpc(server: Shop, make: Make, arity: str) -> None:
    server.handlers.update(HANGS)

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(requests_of(arity))
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await use(call, arity)
        assert time.monotonic() - started <= at_most(0.2)
        assert (call.done(), call.cancelled()) == (True, True)
        assert (await call.code(), await call.details()) == (Code.CANCELLED, "Locally cancelled by application!")
        assert await was_cancelled(server)

    run_clean(make, server, body)


@both
def test_a_read_that_is_cancelled_ends_the_rpc(server: Shop, make: Make) -> None:
    server.handlers["unary_stream"] = two_then_hang

    async def body(channel: Any) -> None:
        call = method_of(channel, "unary_stream")(b"x")
        assert [await call.read(), await call.read()] == [b"0", b"1"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.read(), 0.05)
        assert (call.done(), call.cancelled(), await call.code()) == (True, True, Code.CANCELLED)
        assert await was_cancelled(server)

    run_clean(make, server, body)


@both
def test_responses_are_read_to_their_end(server: Shop, make: Make) -> None:
    server.handlers["stream_stream"] = echo

    async def body(channel: Any) -> None:
        call = method_of(channel, "stream_stream")(iter([b"0", b"1"]))
        assert [await call.read() for _ in range(3)] == [b"0", b"1", grpc.aio.EOF]
        assert await call.read() is grpc.aio.EOF
        assert (await call.code(), call.done(), call.cancel()) == (Code.OK, True, False)

    run_clean(make, server, body)


@both
@pytest.mark.parametrize("arity", STREAMED)
def test_requests_may_be_written_one_by_one(server: Shop, make: Make, arity: str) -> None:
    server.handlers.update(stream_unary=join, stream_stream=echo)

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)()
        responses = []
        for request in (b"0", b"1"):
            await call.write(request)
            if arity == "stream_stream":
                responses.append(await call.read())
        await call.done_writing()
        responses.append(await call.read() if arity == "stream_stream" else await call)
        assert responses == ([b"0", b"1", grpc.aio.EOF] if arity == "stream_stream" else [b"0|1"])
        assert (await call.code(), call.done()) == (Code.OK, True)
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"2")
        await call.done_writing()

    run_clean(make, server, body)


@both
@pytest.mark.parametrize("arity", STREAMED)
def test_writing_ends_when_the_rpc_has_failed(server: Shop, make: Make, arity: str) -> None:
    def fails(rpc: Rpc, requests: Any) -> bytes:
        return bytes(rpc.fail())

    server.handlers.update(stream_unary=fails, stream_stream=lambda rpc, requests: iter([fails(rpc, requests)]))

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)()
        # A write that meets the end of the RPC raises its error, on plain channels, too.
        with pytest.raises((asyncio.InvalidStateError, grpc.RpcError)):
            while True:
                await call.write(b"0")
                await asyncio.sleep(0.005)
        await call.done_writing()
        assert await call.code() in (Code.UNAVAILABLE, Code.INTERNAL)  # gRPC may lose the status
        with pytest.raises(grpc.RpcError):
            await (call if arity == "stream_unary" else call.read())
        assert len(server.rpcs) == (1 if make is plain else 3)

    run_clean(make, server, body)


@pytest.mark.parametrize("arity", STREAMED)
def test_what_was_written_is_replayed(server: Shop, arity: str) -> None:
    def joined(rpc: Rpc, requests: Any) -> bytes:
        for _ in rpc.read(requests):
            if rpc.number < 3 and len(rpc.requests) == rpc.number:
                rpc.fail()
        return b"|".join(rpc.requests)

    server.handlers.update(stream_unary=joined, stream_stream=lambda rpc, requests: iter([joined(rpc, requests)]))

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)()
        for number in range(4):
            await call.write(str(number).encode())
            await asyncio.sleep(0.02)
        await call.done_writing()
        assert await (call if arity == "stream_unary" else call.read()) == b"0|1|2|3"

    run_clean(guarded, server, body)
    assert len(server.rpcs) == 3


@pytest.mark.parametrize("arity", STREAMED)
def test_writing_to_a_call_that_was_rejected_ends_at_once(server: Shop, arity: str) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"0")
        await call.done_writing()
        assert await call.code() is Code.UNAVAILABLE
        assert "isolated" in await call.details()
        assert (tuple(await call.initial_metadata()), tuple(await call.trailing_metadata())) == ((), ())
        assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
        for wait in (call.wait_for_connection(), call.read() if arity == "stream_stream" else call):
            with pytest.raises(CircuitOpenError):
                await wait

    run_clean(through(breaker), server, body)
    assert server.rpcs == []


@pytest.mark.parametrize("arity", STREAMED)
def test_writing_ends_at_the_deadline(server: Shop, arity: str) -> None:
    server.handlers.update(HANGS)

    async def body(channel: Any) -> None:
        call = method_of(channel, arity)(timeout=0.2)
        started = time.monotonic()
        with pytest.raises(asyncio.InvalidStateError):
            while True:
                await call.write(b"0" * 100_000)
        assert time.monotonic() - started <= at_most(0.2)
        assert await call.code() is Code.DEADLINE_EXCEEDED
        with pytest.raises(DeadlineExceededError):
            await (call if arity == "stream_unary" else call.read())
        assert await was_cancelled(server)

    run_clean(guarded, server, body)


@both
def test_the_client_may_wait_for_initial_metadata_before_it_sends(server: Shop, make: Make) -> None:
    server.handlers["stream_stream"] = echo

    async def body(channel: Any) -> None:
        go_on = asyncio.Event()

        async def requests() -> AsyncIterator[bytes]:
            await go_on.wait()
            yield b"0"

        call = method_of(channel, "stream_stream")(requests())
        assert tuple(await call.initial_metadata()) == (("room", "7"),)
        go_on.set()
        assert await use(call, "stream_stream") == [b"0"]

    run_clean(make, server, body)


@both
@pytest.mark.parametrize("arity", ["unary_unary", "unary_stream", "stream_unary"])
def test_a_channel_that_is_closed_gives_calls_the_grace(server: Shop, make: Make, arity: str) -> None:
    def slow(rpc: Rpc, request: Any) -> bytes:
        time.sleep(0.3)  # a server, not the library
        return b"late"

    server.handlers.update({arity: slow})
    if arity == "unary_stream":
        server.handlers[arity] = lambda rpc, request: iter([slow(rpc, request)])

    async def body(channel: Any) -> None:
        using = asyncio.create_task(use(method_of(channel, arity)(requests_of(arity)), arity))
        await seen(server)
        await channel.close(grace=5.0)
        assert await using == [b"late"]

    run_clean(make, server, body)


@pytest.mark.parametrize("arity", ARITIES)
def test_a_fallback_stands_in_for_the_responses(server: Shop, arity: str) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    value: Any = [b"a", b"b"] if arity.endswith("stream") else b"a"

    async def body(channel: Any) -> None:
        called: list[Any] = []
        call = method_of(channel, arity)(requests_of(arity))
        call.add_done_callback(lambda given: called.append(given is call))
        assert await use(call, arity) == [*(value if arity.endswith("stream") else [value])]
        assert (await call.code(), await call.details()) == (Code.OK, "")
        assert (call.done(), call.cancelled(), call.cancel(), called) == (True, False, False, [True])

    run_clean(through(Fallback(value=value), breaker), server, body)


@pytest.mark.parametrize("arity", ["unary_stream", "stream_stream"])
def test_an_iteration_that_is_left_gives_its_permits_back_with_the_channel(server: Shop, arity: str) -> None:
    server.handlers[arity] = two_then_hang
    bulkhead = Bulkhead(1)

    async def body(channel: Any) -> None:
        async for _ in method_of(channel, arity)(requests_of(arity)):
            break
        assert bulkhead.in_flight == 1

    run_clean(through(Timeout(30.0), bulkhead), server, body)
    assert bulkhead.in_flight == 0
    assert server.was_cancelled()


@pytest.mark.parametrize("read", [True, False])
def test_the_deadline_of_a_caller_in_a_hurry_is_no_failure(server: Shop, read: bool) -> None:
    """Whoever sees the end of the stream first: the task that reads it, or a callback of grpc."""
    server.handlers["unary_stream"] = two_then_hang
    breaker = never_open()
    bulkhead = Bulkhead(10)

    async def body(channel: Any) -> None:
        calls = [method_of(channel, "unary_stream")(b"x", timeout=0.2) for _ in range(5)]
        for call in calls:
            assert await call.read() == b"0"
            if read:
                with pytest.raises(DeadlineExceededError):
                    await use(call, "unary_stream")
            assert await call.code() is Code.DEADLINE_EXCEEDED
        assert await until(lambda: bulkhead.in_flight == 0)

    run_clean(through(Timeout(10.0), bulkhead, breaker), server, body)
    assert score(breaker) == (0, 0)


@pytest.mark.parametrize("policy", [Timeout(10.0, idle=0.1), Timeout(0.2)], ids=["idle", "total"])
def test_a_stream_that_takes_too_long_is_a_failure(server: Shop, policy: Timeout) -> None:
    server.handlers["unary_stream"] = two_then_hang
    breaker = never_open()

    async def body(channel: Any) -> None:
        for number in (1, 2, 3):
            call = method_of(channel, "unary_stream")(b"x")
            with pytest.raises(DeadlineExceededError):
                await use(call, "unary_stream")
            assert (call.done(), await call.code()) == (True, Code.DEADLINE_EXCEEDED)
            assert score(breaker) == (number, number)
            assert await was_cancelled(server, number)

    run_clean(through(policy, breaker), server, body)


@pytest.mark.parametrize("phase", ["first", "attempt", "total"])
def test_each_bound_holds_for_the_first_response(server: Shop, phase: str) -> None:
    server.handlers["unary_stream"] = hang_streaming
    breaker = never_open()
    policies = {
        "first": (Timeout(10.0, first=0.2), breaker),
        "attempt": (Timeout(10.0), Retry(1), breaker, Timeout(0.2)),
        "total": (Timeout(0.2), Retry(), breaker),
    }

    async def body(channel: Any) -> None:
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await use(method_of(channel, "unary_stream")(b"x"), "unary_stream")
        assert 0.19 <= time.monotonic() - started <= at_most(0.2)
        assert await was_cancelled(server)

    run_clean(through(*policies[phase]), server, body)
    assert score(breaker) == (1, 1)


def test_an_attempt_whose_initial_metadata_were_read_is_the_last_one(server: Shop) -> None:
    def fails(rpc: Rpc, request: Any) -> Iterator[bytes]:
        rpc.context.send_initial_metadata((("attempt", str(rpc.number)),))
        time.sleep(0.2)  # a server, not the library
        rpc.fail()
        yield b""

    server.handlers["unary_stream"] = fails

    async def body(channel: Any) -> None:
        call = method_of(channel, "unary_stream")(b"x")
        assert tuple(await call.initial_metadata()) == (("attempt", "1"),)
        assert await call.code() is Code.UNAVAILABLE

    run_clean(guarded, server, body)
    assert len(server.rpcs) == 1
