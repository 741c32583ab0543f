"""What attempts send: the message as it was when the call was made, or a stream of messages, which is read once."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, CircuitBreaker, CircuitOpenError, Pipeline, Retry, Timeout, backoff
from resilience.events import RetryScheduled
from resilience.grpc._requests import (
    REPLAY_BYTES,
    UNKNOWN_SIZE,
    ReplayedRequests,
    RequestsSpent,
    UnaryRequest,
    copied,
    size_of,
)
from resilience.testing import Recorder
from tests.grpc.helpers import SOON, Code
from tests.grpc.servers import wait_until
from tests.grpc.streaming import PATH, Rpc, Shop, method_of, shop
from tests.support.timing import at_most

wrappers: Any = import_module("google.protobuf.wrappers_pb2")  # by name: there are no stubs
Int32Value, StringValue = wrappers.Int32Value, wrappers.StringValue
STREAMED = ["stream_unary", "stream_stream"]
arities = pytest.mark.parametrize("arity", STREAMED)
slow = pytest.mark.slow


def test_a_message_is_copied_and_bytes_are_not() -> None:
    message, data = Int32Value(value=1), b"x" * 100
    request = UnaryRequest(message)
    message.value = 2
    assert request.for_attempt() == Int32Value(value=1)
    assert UnaryRequest(data).for_attempt() is data
    assert copied(data) is data


def test_a_message_that_cannot_be_copied_is_sent_as_it_is() -> None:
    class Stubborn:
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no")

    stubborn = Stubborn()
    assert UnaryRequest(stubborn).for_attempt() is stubborn


def test_a_plain_object_is_copied_deeply() -> None:
    message = {"names": ["a"]}
    request = UnaryRequest(message)
    message["names"].append("b")
    assert request.for_attempt() == {"names": ["a"]}


def test_the_size_of_a_message() -> None:
    assert (size_of(b"abc"), size_of("ab"), size_of(bytearray(4))) == (3, 2, 4)
    assert size_of(StringValue(value="abc")) == StringValue(value="abc").ByteSize()
    assert size_of(object()) == UNKNOWN_SIZE


def test_each_attempt_gets_all_messages_and_the_source_is_read_once() -> None:
    read: list[int] = []

    def source() -> Iterator[bytes]:
        for number in range(3):
            read.append(number)
            yield str(number).encode()

    requests = ReplayedRequests(source())
    first = requests.for_attempt()
    assert [next(first), next(first)] == [b"0", b"1"]
    requests.end_attempt()
    assert list(first) == []
    assert list(requests.for_attempt()) == [b"0", b"1", b"2"]
    assert list(requests.for_attempt()) == [b"0", b"1", b"2"]
    assert read == [0, 1, 2]


def test_a_message_that_is_changed_later_is_replayed_as_it_was() -> None:
    message = Int32Value()

    def source() -> Iterator[Any]:
        for number in range(3):
            message.value = number
            yield message

    requests = ReplayedRequests(source())
    assert [one.value for one in requests.for_attempt()] == [0, 1, 2]
    assert [one.value for one in requests.for_attempt()] == [0, 1, 2]


def test_what_is_too_large_is_not_kept() -> None:
    half = b"x" * (REPLAY_BYTES // 2)
    requests = ReplayedRequests(iter([half, half, b"y", b"z"]))
    sending = requests.for_attempt()
    assert [next(sending), next(sending)] == [half, half]
    assert requests.replayable
    assert next(sending) == b"y"
    assert not requests.replayable
    assert list(sending) == [b"z"]
    assert requests._messages == []
    with pytest.raises(RequestsSpent):
        requests.for_attempt()


def test_a_failed_attempt_takes_nothing_from_the_next_one() -> None:
    """Its thread may wait for a message that is too large to be kept, after it was decided to make another attempt."""
    asked, go_on = threading.Event(), threading.Event()
    large = b"x" * (REPLAY_BYTES + 1)

    def source() -> Iterator[bytes]:
        yield b"0"
        asked.set()
        assert go_on.wait(5.0)
        yield large

    requests = ReplayedRequests(source())
    first = requests.for_attempt()
    assert next(first) == b"0"
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(list, first)
        assert asked.wait(5.0)
        requests.end_attempt()
        assert requests.replayable
        go_on.set()
        assert late.result(5.0) == []
    assert list(requests.for_attempt()) == [b"0", large]


def test_an_iterator_that_raises_does_so_in_every_attempt() -> None:
    def source() -> Iterator[bytes]:
        yield b"0"
        raise ValueError("mine")

    requests = ReplayedRequests(source())
    for _ in range(2):
        sending = requests.for_attempt()
        assert next(sending) == b"0"
        with pytest.raises(ValueError, match="mine"):
            next(sending)
    assert isinstance(requests.error, ValueError)


def test_a_spent_request_pickles_and_copies() -> None:
    assert copy.copy(RequestsSpent("spent")).args == ("spent",)


# Real servers.


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({}) as server:
        yield server


def fail_until(number: int, after: int | None = None) -> dict[str, Any]:
    """Handlers that fail all RPCs before that number, after so many requests; None for after all."""

    def joined(rpc: Rpc, requests: Any) -> bytes:
        for _ in rpc.read(requests):
            if rpc.number < number and len(rpc.requests) == after:
                rpc.fail()
        if rpc.number < number:
            rpc.fail()
        return b"|".join(rpc.requests)

    def streamed(rpc: Rpc, requests: Any) -> Iterator[bytes]:
        yield joined(rpc, requests)

    return {"stream_unary": joined, "stream_stream": streamed}


def call(channel: grpc.Channel, arity: str, requests: Iterator[bytes], **kwargs: Any) -> bytes:
    """Make an RPC with a single response, or a stream of one."""
    result: Any = method_of(channel, arity)(requests, **kwargs)
    if arity == "stream_unary":
        response: bytes = result
        return response
    (response,) = result
    return response


@slow
@arities
@pytest.mark.parametrize("after", [0, 1, 3, None])
def test_the_server_sees_all_requests_in_each_attempt(server: Shop, arity: str, after: int | None) -> None:
    server.handlers.update(fail_until(3, after))

    def requests() -> Iterator[bytes]:
        yield from (b"0", b"1", b"2", b"3")

    with resilience.grpc.insecure_channel(server.target, Pipeline(Retry(wait=SOON)), idempotent=True) as channel:
        assert call(channel, arity, requests()) == b"0|1|2|3"
    assert len(server.rpcs) == 3


@slow
@arities
def test_an_attempt_that_does_not_need_the_next_request_does_not_wait_for_it(server: Shop, arity: str) -> None:
    """The thread of the attempt before waits for it, and holds the lock of the iterator."""
    go_on = threading.Event()

    def first_only(rpc: Rpc, requests: Any) -> bytes:
        request: bytes = next(requests)
        if rpc.number == 1:
            rpc.fail()
        return request

    def streamed(rpc: Rpc, requests: Any) -> Iterator[bytes]:
        yield first_only(rpc, requests)

    server.handlers.update(stream_unary=first_only, stream_stream=streamed)

    def requests() -> Iterator[bytes]:
        yield b"0"
        go_on.wait(20.0)

    with resilience.grpc.insecure_channel(server.target, Pipeline(Retry(wait=SOON)), idempotent=True) as channel:
        started = time.monotonic()
        assert call(channel, arity, requests()) == b"0"
        assert time.monotonic() - started <= at_most(1.0)
        go_on.set()
    assert len(server.rpcs) == 2


@slow
@arities
def test_a_late_request_that_is_too_large_reaches_the_second_attempt(server: Shop, arity: str) -> None:
    large = b"x" * (REPLAY_BYTES + 1)
    go_on = threading.Event()

    def joined(rpc: Rpc, requests: Any) -> bytes:
        if rpc.number == 1:
            next(requests)
            rpc.fail()
        return b"|".join(requests)

    def streamed(rpc: Rpc, requests: Any) -> Iterator[bytes]:
        yield joined(rpc, requests)

    server.handlers.update(stream_unary=joined, stream_stream=streamed)

    def requests() -> Iterator[bytes]:
        yield b"0"
        assert go_on.wait(5.0)
        yield large

    pipeline = Pipeline(Retry(wait=backoff.fixed(0.2)))
    pipeline.subscribe(lambda event: go_on.set(), events=(RetryScheduled,))
    with resilience.grpc.insecure_channel(server.target, pipeline, idempotent=True) as channel:
        assert call(channel, arity, requests()) == b"0|" + large


@slow
@arities
def test_what_was_too_large_is_not_sent_again(server: Shop, arity: str) -> None:
    server.handlers.update(fail_until(2))
    requests = iter([b"x" * REPLAY_BYTES, b"y"])
    pipeline = Pipeline(Retry(wait=SOON))
    with (
        resilience.grpc.insecure_channel(server.target, pipeline, idempotent=True) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        call(channel, arity, requests)
    error: Any = caught.value
    assert error.code() is Code.UNAVAILABLE
    assert len(server.rpcs) == 1


@slow
@arities
def test_an_iterator_that_never_ends_is_read_until_the_deadline(server: Shop, arity: str) -> None:
    server.handlers.update(fail_until(0))
    stopped = threading.Event()

    def requests() -> Iterator[bytes]:
        try:
            while not stopped.wait(0.001):
                yield b"x" * 100
        finally:
            stopped.set()

    with (
        resilience.grpc.insecure_channel(server.target, Pipeline(Timeout(1.0), Retry()), idempotent=True) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        call(channel, arity, requests())
    stopped.set()
    error: Any = caught.value
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert server.was_cancelled()


@slow
@arities
def test_an_iterator_that_raises_is_no_failure_of_the_server(server: Shop, arity: str) -> None:
    server.handlers.update(fail_until(0))
    breaker = CircuitBreaker()

    def requests() -> Iterator[bytes]:
        yield b"0"
        raise ValueError("mine")

    pipeline = Pipeline(Retry(wait=SOON), breaker)
    with (
        resilience.grpc.insecure_channel(server.target, pipeline, idempotent=True) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        call(channel, arity, requests())
    error: Any = caught.value
    assert (error.code(), error.details()) == (Code.UNKNOWN, "Exception iterating requests!")
    assert breaker.snapshot()["calls"] == 0
    assert len(server.rpcs) <= 1


@slow
@arities
def test_a_rejected_call_reads_no_request(server: Shop, arity: str) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    read: list[int] = []

    def requests() -> Iterator[bytes]:
        read.append(0)
        yield b"0"

    with (
        resilience.grpc.insecure_channel(server.target, Pipeline(breaker)) as channel,
        pytest.raises(CircuitOpenError),
    ):
        call(channel, arity, requests())
    assert (read, server.rpcs) == ([], [])


@slow
def test_a_future_sends_the_message_as_it_was_when_it_was_made(server: Shop) -> None:
    server.handlers["unary_unary"] = lambda rpc, request: request
    bulkhead = Bulkhead(1, queue=50, max_wait=20.0)
    message = Int32Value()
    metadata: list[tuple[str, str]] = []
    with resilience.grpc.insecure_channel(server.target, Pipeline(bulkhead)) as channel:
        get: Any = channel.unary_unary(
            PATH + "unary_unary",
            request_serializer=Int32Value.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )
        futures: list[Any] = []
        with bulkhead:
            for number in range(10):
                message.value = number
                metadata[:] = [("number", str(number))]
                futures.append(get.future(message, metadata=metadata))
            assert wait_until(lambda: bulkhead.queued == 10)
        assert [future.result(5.0).value for future in futures] == [*range(10)]
    assert sorted(dict(rpc.metadata)["number"] for rpc in server.rpcs) == [str(number) for number in range(10)]


@slow
def test_a_retry_sends_the_message_as_it_was(server: Shop) -> None:
    seen: list[int] = []

    def handler(rpc: Rpc, request: bytes) -> bytes:
        seen.append(Int32Value.FromString(request).value)
        if rpc.number == 1:
            rpc.fail()
        return request

    server.handlers["unary_unary"] = handler
    pipeline = Pipeline(Retry(wait=backoff.fixed(0.05)))
    with (
        resilience.grpc.insecure_channel(server.target, pipeline, idempotent=True) as channel,
        Recorder(pipeline, events=[RetryScheduled]) as recorder,
    ):
        get: Any = channel.unary_unary(PATH + "unary_unary", request_serializer=Int32Value.SerializeToString)
        message = Int32Value(value=1)
        future = get.future(message)
        message.value = 99
        future.result(5.0)
        assert len(recorder.events) == 1
    assert seen == [1, 1]
