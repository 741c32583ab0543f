"""Streams of responses of the synchronous API behave as those of grpc, and hold their permits as long as they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, CircuitBreaker, Fallback, Pipeline, Retry, Timeout
from resilience.grpc._stream import ResponseStream
from tests.grpc.helpers import SOON, Code
from tests.grpc.servers import wait_until
from tests.grpc.streaming import Rpc, Shop, method_of, shop
from tests.support.timing import at_most

pytestmark = pytest.mark.slow

Make = Callable[[str], grpc.Channel]


def plain(target: str) -> grpc.Channel:
    return grpc.insecure_channel(target)


def guarded(target: str) -> grpc.Channel:
    return resilience.grpc.insecure_channel(target, Pipeline(Retry(wait=SOON)), idempotent=True)


both = pytest.mark.parametrize("make", [plain, guarded])
"""What holds for a guarded channel is what holds for one of grpc."""


def hang(rpc: Rpc, request: Any) -> Iterator[bytes]:
    rpc.wait()
    yield b"never"


def two_then_hang(rpc: Rpc, request: Any) -> Iterator[bytes]:
    yield b"0"
    yield b"1"
    rpc.wait()


def nothing(rpc: Rpc, request: Any) -> Iterator[bytes]:
    return
    yield


def two_then_fail(rpc: Rpc, request: Any) -> Iterator[bytes]:
    yield b"0"
    yield b"1"
    rpc.fail(Code.NOT_FOUND)


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({}) as server:
        yield server


def state(stream: Any) -> tuple[Any, ...]:
    """What a stream says about itself without blocking."""
    asked: list[Any] = [stream.done(), stream.running(), stream.cancelled(), stream.is_active()]
    for method in (stream.result, stream.exception):
        try:
            asked.append(type(method(timeout=0.01)).__name__)
        except Exception as error:
            asked.append(f"raised {type(error).__name__}")
    return tuple(asked)


RUNNING = (False, True, False, True, "raised FutureTimeoutError", "raised FutureTimeoutError")


@both
def test_a_stream_shows_its_state_in_every_phase(server: Shop, make: Make) -> None:
    go_on = threading.Event()

    def handler(rpc: Rpc, request: Any) -> Iterator[bytes]:
        yield b"0"
        go_on.wait(5.0)
        yield b"1"

    server.handlers["unary_stream"] = handler
    with make(server.target) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        assert state(stream) == RUNNING
        assert next(stream) == b"0"
        assert state(stream) == RUNNING
        go_on.set()
        assert list(stream) == [b"1"]
        assert state(stream) == (True, False, False, False, "NoneType", "NoneType")
        assert (stream.code(), stream.details(), stream.cancel()) == (Code.OK, "", False)
        assert (list(stream.initial_metadata()), list(stream.trailing_metadata())) == ([], [])
        assert list(stream) == []


@both
def test_a_stream_that_fails_raises_its_error_again_and_again(server: Shop, make: Make) -> None:
    server.handlers["unary_stream"] = two_then_fail
    with make(server.target) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        assert [next(stream), next(stream)] == [b"0", b"1"]
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            error: Any = caught.value
            assert (error.code(), error.details()) == (Code.NOT_FOUND, "on purpose")
        assert stream.exception().code() is stream.code() is Code.NOT_FOUND
        with pytest.raises(grpc.RpcError):
            stream.result()
        assert stream.traceback() is not None
        assert (stream.done(), stream.cancelled(), stream.cancel()) == (True, False, False)


@both
def test_a_stream_that_is_cancelled_says_so(server: Shop, make: Make) -> None:
    server.handlers["unary_stream"] = two_then_hang
    with make(server.target) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        next(stream)
        assert stream.cancel() is True
        gone = "raised FutureCancelledError"
        assert state(stream) == (True, False, True, False, gone, gone)
        assert stream.cancel() is False
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            error: Any = caught.value
            assert (error.code(), error.details()) == (Code.CANCELLED, "Locally cancelled by application!")
        assert (stream.code(), stream.details()) == (Code.CANCELLED, "Locally cancelled by application!")
        assert server.was_cancelled()


@both
@pytest.mark.parametrize("handler", [hang, two_then_hang])
def test_a_stream_is_cancelled_by_another_thread_while_a_response_is_awaited(
    server: Shop, make: Make, handler: Any
) -> None:
    server.handlers["unary_stream"] = handler
    with make(server.target) as channel, ThreadPoolExecutor(1) as pool:
        stream = method_of(channel, "unary_stream")(b"x")
        reading = pool.submit(list, stream)
        server.seen()
        assert stream.cancel()
        started = time.monotonic()
        error: Any = reading.exception(5.0)
        assert time.monotonic() - started <= at_most(0.0)
        assert error.code() is Code.CANCELLED
        assert server.was_cancelled()


@both
def test_an_empty_stream_ends_well(server: Shop, make: Make) -> None:
    server.handlers["unary_stream"] = nothing
    with make(server.target) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        assert list(stream) == []
        assert (stream.code(), stream.done(), list(stream)) == (Code.OK, True, [])


@both
def test_callbacks_run_once_the_stream_is_done(server: Shop, make: Make) -> None:
    server.handlers["unary_stream"] = two_then_hang
    with make(server.target) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        called: list[Any] = []
        stream.add_done_callback(lambda given: called.append((given is stream, given.done())))
        assert stream.add_callback(lambda: called.append("plain")) is True
        next(stream)
        assert called == []
        stream.cancel()
        assert wait_until(lambda: called == [(True, True), "plain"])
        stream.add_done_callback(lambda given: called.append("later"))
        assert called[2:] == ["later"]
        assert stream.add_callback(lambda: called.append("never")) is False


@both
@pytest.mark.parametrize("handler", [hang, two_then_hang])
def test_a_stream_that_is_dropped_ends_at_the_server(server: Shop, make: Make, handler: Any) -> None:
    server.handlers["unary_stream"] = handler
    with make(server.target) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        server.seen()
        if handler is two_then_hang:
            next(stream)
        del stream
        assert server.was_cancelled()


@both
def test_the_client_may_wait_for_initial_metadata_before_it_sends(server: Shop, make: Make) -> None:
    def echo(rpc: Rpc, requests: Any) -> Iterator[bytes]:
        rpc.context.send_initial_metadata((("room", "7"),))
        yield from requests

    server.handlers["stream_stream"] = echo
    go_on = threading.Event()

    def requests() -> Iterator[bytes]:
        assert go_on.wait(5.0)
        yield b"0"
        yield b"1"

    with make(server.target) as channel:
        stream = method_of(channel, "stream_stream")(requests())
        assert [*map(tuple, stream.initial_metadata())] == [("room", "7")]
        go_on.set()
        assert list(stream) == [b"0", b"1"]


def test_an_attempt_whose_initial_metadata_were_read_is_the_last_one(server: Shop) -> None:
    metadata_read = threading.Event()

    def fails(rpc: Rpc, request: Any) -> Iterator[bytes]:
        rpc.context.send_initial_metadata((("attempt", str(rpc.number)),))
        assert metadata_read.wait(5.0)
        rpc.fail()
        yield b""

    server.handlers["unary_stream"] = fails
    with guarded(server.target) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        assert [*map(tuple, stream.initial_metadata())] == [("attempt", "1")]
        metadata_read.set()
        assert stream.code() is Code.UNAVAILABLE
        assert len(server.rpcs) == 1


def test_a_dropped_stream_gives_its_permits_back(server: Shop) -> None:
    server.handlers["unary_stream"] = hang
    bulkhead = Bulkhead(1)
    with resilience.grpc.insecure_channel(server.target, Pipeline(Retry(), bulkhead)) as channel:
        for number in (1, 2):
            stream = method_of(channel, "unary_stream")(b"x")
            assert isinstance(stream, ResponseStream)
            server.seen(number)
            assert bulkhead.in_flight == 1
            del stream
            assert wait_until(lambda: bulkhead.in_flight == 0)
            assert server.was_cancelled(number)


def test_a_stream_that_is_dropped_half_read_gives_its_permits_back(server: Shop) -> None:
    server.handlers["unary_stream"] = two_then_hang
    bulkhead = Bulkhead(1)
    with resilience.grpc.insecure_channel(server.target, Pipeline(Timeout(30.0), bulkhead)) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        next(stream)
        assert bulkhead.in_flight == 1
        del stream
        assert server.was_cancelled()
        assert wait_until(lambda: bulkhead.in_flight == 0)


def test_a_stream_without_a_deadline_is_settled_at_its_first_response(server: Shop) -> None:
    server.handlers["unary_stream"] = two_then_hang
    bulkhead = Bulkhead(1)
    with resilience.grpc.insecure_channel(server.target, Pipeline(Retry(), bulkhead)) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        assert next(stream) == b"0"
        assert bulkhead.in_flight == 0
        stream.cancel()


def test_a_fallback_gives_the_responses_of_an_iterable(server: Shop) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    pipeline = Pipeline(Fallback(value=[b"a", b"b"]), breaker)
    with resilience.grpc.insecure_channel(server.target, pipeline) as channel:
        for _ in range(2):
            stream = method_of(channel, "unary_stream")(b"x")
            called: list[Any] = []
            stream.add_done_callback(called.append)
            assert list(stream) == [b"a", b"b"]
            assert (stream.code(), stream.done(), stream.exception()) == (Code.OK, True, None)
    assert server.rpcs == []
