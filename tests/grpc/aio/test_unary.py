"""RPCs of `grpc.aio` with one request and one response: their calls behave as those of grpc, however they are used."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    Pipeline,
    Retry,
    Timeout,
    backoff,
)
from resilience.events import RetryScheduled
from resilience.grpc.aio._callables import UnaryUnary
from resilience.grpc.aio._unary import AioUnaryUnaryCall
from tests.grpc.aio.clean import run_clean, seen, was_cancelled
from tests.grpc.helpers import SOON, Code, until
from tests.grpc.streaming import Rpc, Shop, method_of, shop
from tests.grpc.test_stream_ends import garbage_of_ours
from tests.support.garbage import no_collection

pytestmark = pytest.mark.slow

Make = Callable[[str], Any]


def answer(rpc: Rpc, request: bytes) -> bytes:
    rpc.context.set_trailing_metadata((("number", str(rpc.number)),))
    if request == b"hang":
        rpc.wait()
    if request == b"fail" or (request == b"fail once" and rpc.number == 1):
        rpc.fail()
    if request == b"slow":
        rpc.wait(0.1)
    return request


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({"unary_unary": answer}) as server:
        yield server


def plain(target: str) -> Any:
    return grpc.aio.insecure_channel(target)


def guarded(target: str) -> Any:
    pipeline = Pipeline(Timeout(20.0), Retry(wait=SOON), Bulkhead(100), Timeout(10.0))
    return resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True)


def through(*policies: Any) -> Make:
    return lambda target: resilience.grpc.aio.insecure_channel(target, Pipeline(*policies), idempotent=True)


both = pytest.mark.parametrize("make", [plain, guarded])
"""What holds for a guarded channel is what holds for one of grpc."""


def stub_of(channel: Any) -> Any:
    return method_of(channel, "unary_unary")


async def pipelines_task(channel: Any) -> Any:
    """Make a call and let its pipeline start in a task of its own."""
    call = stub_of(channel)(b"hang")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return call


# How calls are used


@both
def test_a_call_that_is_dropped_is_sent(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        stub_of(channel)(b"x")
        await seen(server)
        assert await until(server.rpcs[0].ended.is_set)
        assert not server.rpcs[0].cancelled

    run_clean(make, server, body)


@both
def test_a_call_that_is_not_awaited_is_sent_at_once(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"x")
        await seen(server)
        assert await call == b"x"
        assert await call == b"x"
        assert await call.code() is Code.OK

    run_clean(make, server, body)


@both
def test_a_call_has_the_classes_of_grpc(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        stub = stub_of(channel)
        call = stub(b"x")
        assert isinstance(channel, grpc.aio.Channel)
        assert isinstance(stub, grpc.aio.UnaryUnaryMultiCallable)
        assert isinstance(call, grpc.aio.UnaryUnaryCall)
        assert await asyncio.wait_for(call, 5.0) == b"x"
        assert [*await asyncio.gather(stub(b"0"), stub(b"1"))] == [b"0", b"1"]

    run_clean(make, server, body)


@both
def test_a_call_tells_its_state(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"slow", timeout=5.0)
        assert (call.done(), call.cancelled()) == (False, False)
        assert 0.0 < call.time_remaining() <= 5.0
        assert stub_of(channel)(b"x").time_remaining() is None
        assert await call.wait_for_connection() is None
        assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
        assert [key for key, _ in await call.trailing_metadata()] == ["number"]
        assert list(await call.initial_metadata()) == []
        assert (await call.code(), await call.details(), await call.debug_error_string()) == (Code.OK, "", "")

    run_clean(make, server, body)


@both
def test_a_call_tells_how_it_has_failed(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        for first in ("code", "await", "wait_for_connection"):
            call = stub_of(channel)(b"fail")
            if first == "code":
                assert await call.code() is Code.UNAVAILABLE
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError, match="on purpose"):
                    await (call.wait_for_connection() if first == "wait_for_connection" else call)
            assert (await call.code(), await call.details()) == (Code.UNAVAILABLE, "on purpose")
            assert "on purpose" in await call.debug_error_string()
            assert [key for key, _ in await call.trailing_metadata()] == ["number"]
            assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)

    run_clean(make, server, body)


@both
def test_callbacks_are_called_once_with_the_call(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        told: list[Any] = []

        def tell(given: Any) -> None:
            told.append((given, given.done()))

        for way in ("await", "code", "cancel"):
            told.clear()
            call = stub_of(channel)(b"x")
            call.add_done_callback(tell)
            if way == "await":
                await call
            elif way == "cancel":
                call.cancel()
            await call.code()
            assert await until(lambda: len(told) == 1)
            call.add_done_callback(tell)
            assert told == [(call, True)] * 2

    run_clean(make, server, body)


def test_a_callback_that_raises_does_not_keep_the_others_from_being_called(
    server: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(channel: Any) -> None:
        told: list[Any] = []
        call = stub_of(channel)(b"x")
        call.add_done_callback(lambda given: 1 / 0)
        call.add_done_callback(told.append)
        assert await call == b"x"
        assert told == [call]

    run_clean(guarded, server, body)
    assert "callback of an RPC" in caplog.text


def test_a_call_that_was_rejected_tells_so(server: Shop) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()

    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"x")
        assert await call.code() is Code.UNAVAILABLE
        assert "isolated" in await call.details()
        assert list(await call.trailing_metadata()) == list(await call.initial_metadata()) == []
        with pytest.raises(CircuitOpenError):
            await call

    run_clean(through(breaker), server, body)
    assert server.rpcs == []


def test_a_substitute_has_a_call_of_its_own(server: Shop) -> None:
    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"fail")
        assert await call == b"instead"
        assert (await call.code(), call.done(), call.cancelled()) == (Code.OK, True, False)

    run_clean(through(Fallback(value=b"instead")), server, body)


def test_each_attempt_has_the_request_and_the_metadata_of_the_caller(server: Shop) -> None:
    request = [b"fail once"]

    async def body(channel: Any) -> None:
        stub = channel.unary_unary("/shop.Shop/unary_unary", request_serializer=lambda message: message[0])
        call = stub(request, metadata=iter([("key", "1"), ("key", "2")]), compression=grpc.Compression.Gzip)
        request[0] = b"changed"
        assert await call == b"fail once"

    run_clean(guarded, server, body)
    sent = [[pair for pair in rpc.metadata if pair[0] == "key"] for rpc in server.rpcs]
    assert sent == [[("key", "1"), ("key", "2")]] * 2


# Tasks


def test_a_call_that_is_awaited_at_once_runs_in_that_task(server: Shop) -> None:
    started: list[Any] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        started.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def body(channel: Any) -> None:
        stub = stub_of(channel)
        assert type(stub) is UnaryUnary
        await stub(b"x")
        asyncio.get_running_loop().set_task_factory(factory)
        await stub(b"x")
        asyncio.get_running_loop().set_task_factory(None)

    run_clean(guarded, server, body)
    assert len(started) == 1  # that of grpc


@both
@pytest.mark.parametrize("when", ["before it runs", "borrowed", "own task"])
def test_to_cancel_a_call_ends_it_and_its_waits_but_cancels_no_task(server: Shop, make: Make, when: str) -> None:
    async def body(channel: Any) -> None:
        async def use() -> int:
            if when == "borrowed":
                calls.append(stub_of(channel)(b"hang"))
            with pytest.raises(asyncio.CancelledError):
                await calls[0]
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(0)
            assert await stub_of(channel)(b"x") == b"x"
            return task.cancelling()

        calls = [] if when == "borrowed" else [stub_of(channel)(b"hang")]
        if when == "before it runs":
            assert calls[0].cancel()
        using = asyncio.create_task(use())
        if when != "before it runs":
            await seen(server)
            assert calls[0].cancel()
        assert await using == 0
        assert (calls[0].done(), calls[0].cancelled(), calls[0].cancel()) == (True, True, False)
        assert await calls[0].code() is Code.CANCELLED
        assert await calls[0].details() == "Locally cancelled by application!"
        assert (await calls[0].trailing_metadata()) == grpc.aio.Metadata()
        if when != "before it runs":
            assert await was_cancelled(server)

    run_clean(make, server, body)


@both
@pytest.mark.parametrize("first", ["borrowed", "own task"])
@pytest.mark.parametrize("cancelled", [0, 1])
def test_to_cancel_one_of_two_waits_cancels_the_rpc(server: Shop, make: Make, first: str, cancelled: int) -> None:
    async def body(channel: Any) -> None:
        calls: list[Any] = []

        async def use() -> bytes:
            if not calls:
                calls.append(stub_of(channel)(b"hang"))
            return bytes(await calls[0])

        if first == "own task":
            calls.append(await pipelines_task(channel))
        waits = [asyncio.create_task(use()) for _ in range(2)]
        await seen(server)
        waits[cancelled].cancel()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(one) for one in results] == [asyncio.CancelledError] * 2
        assert (calls[0].done(), calls[0].cancelled()) == (True, True)
        assert await was_cancelled(server)

    run_clean(make, server, body)


@both
def test_a_second_wait_gets_the_response_too(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        calls: list[Any] = []

        async def use() -> bytes:
            if not calls:
                calls.append(stub_of(channel)(b"slow"))
            return bytes(await calls[0])

        assert [*await asyncio.gather(use(), use(), use())] == [b"slow"] * 3

    run_clean(make, server, body)


@both
def test_both_a_task_and_its_call_may_be_cancelled(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        calls: list[Any] = []

        async def use() -> None:
            calls.append(stub_of(channel)(b"hang"))
            await calls[0]

        using = asyncio.create_task(use())
        await seen(server)
        assert using.cancel()
        assert calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert (using.cancelled(), using.cancelling()) == (True, 1)

    run_clean(make, server, body)


def test_a_call_may_be_cancelled_by_a_listener_of_its_own_pipeline(server: Shop) -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(30.0)))
    calls: list[Any] = []

    async def body(channel: Any) -> None:
        with pipeline.subscribe(lambda event: calls[0].cancel(), events=[RetryScheduled]):
            calls.append(stub_of(channel)(b"fail"))
            with pytest.raises(asyncio.CancelledError):
                await calls[0]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        assert calls[0].cancelled()

    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True), server, body)
    assert len(server.rpcs) == 1


def test_a_call_that_its_own_task_cancels_as_it_ends_cancels_nothing_else(server: Shop) -> None:
    calls: list[Any] = []

    def cancel(response: Any) -> bool:
        assert calls[0].cancel()
        return False

    async def body(channel: Any) -> None:
        calls.append(stub_of(channel)(b"x"))
        assert await calls[0] == b"x"
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (task.cancelling(), await calls[0].code()) == (0, Code.OK)

    pipeline = Pipeline(Retry(), failures=Allowlist.of_results(cancel))
    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True), server, body)


# What is left


def test_a_thousand_calls_leave_nothing(server: Shop) -> None:
    async def body(channel: Any) -> None:
        stub = stub_of(channel)

        async def use(number: int) -> None:
            request = (b"x", b"fail")[number % 2]
            call = stub(request)
            if number % 3 == 0:
                call.cancel()
            elif number % 5 == 0:
                await call.code()
            else:
                await asyncio.gather(call, return_exceptions=True)

        for number in range(0, 1000, 50):
            await asyncio.gather(*(use(number + one) for one in range(50)))
        assert await until(lambda: not channel._calls)
        await asyncio.sleep(0.05)
        gc.collect()
        assert [one for one in gc.get_objects() if issubclass(type(one), AioUnaryUnaryCall)] == []

    run_clean(through(Bulkhead(1000)), server, body)


@both
def test_the_traceback_of_a_failed_call_does_not_grow(server: Shop, make: Make) -> None:
    async def depth(call: Any) -> int:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return len(caught.traceback)

    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"fail")
        await depth(call)
        assert await depth(call) == await depth(call)

    run_clean(make, server, body)


def test_a_callback_that_raises_a_cancellation_cancels_nothing(server: Shop) -> None:
    ended: list[Any] = []

    def cancel(call: Any) -> None:
        raise asyncio.CancelledError

    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"x")
        call.add_done_callback(cancel)
        call.add_done_callback(ended.append)
        assert await call == b"x"
        assert ended == [call]

    run_clean(guarded, server, body)


def test_a_call_that_has_failed_leaves_no_cycle(server: Shop) -> None:
    async def fail(stub: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(b"fail")

    async def body(channel: Any) -> None:
        stub = stub_of(channel)
        await fail(stub)
        with no_collection():
            for _ in range(10):
                await fail(stub)
            await asyncio.sleep(0.05)
            assert garbage_of_ours() == []

    run_clean(through(Retry(1)), server, body)
