"""How breakers score a stream of responses, whoever sees its end first: the thread that reads it, or that of grpc."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout
from resilience.events import TimedOut
from resilience.testing import Recorder
from tests.grpc.helpers import Code
from tests.grpc.servers import wait_until
from tests.grpc.streaming import Rpc, Shop, method_of, shop
from tests.grpc.test_stream import hang, two_then_fail, two_then_hang
from tests.support.timing import at_most

pytestmark = pytest.mark.slow

STREAMS = 10


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({"unary_stream": two_then_hang}) as server:
        yield server


def never_open() -> CircuitBreaker:
    return CircuitBreaker(consecutive_failures=None, min_calls=1000)


def score(breaker: CircuitBreaker) -> tuple[Any, Any]:
    """How many calls the breaker has counted, and how many of them as failures."""
    counts = breaker.snapshot()
    return counts["calls"], counts["failures"]


def read(stream: Any) -> Any:
    """Read a stream to its end; returns the error, if there is one."""
    try:
        for _ in stream:
            pass
    except grpc.RpcError as error:
        return error
    return None


def test_a_long_silence_is_a_failure(server: Shop) -> None:
    breaker = never_open()
    pipeline = Pipeline(Timeout(10.0, idle=0.05), breaker)
    with (
        resilience.grpc.insecure_channel(server.target, pipeline) as channel,
        Recorder(pipeline, events=[TimedOut]) as recorder,
    ):
        for number in range(1, STREAMS + 1):
            stream = method_of(channel, "unary_stream")(b"x")
            codes: list[Any] = []
            stream.add_done_callback(lambda given, codes=codes: codes.append((given.code(), given.cancelled())))
            assert isinstance(read(stream), DeadlineExceededError)
            assert wait_until(lambda number=number: score(breaker) == (number, number))  # type: ignore[misc]
            assert wait_until(lambda codes=codes: codes == [(Code.DEADLINE_EXCEEDED, False)])  # type: ignore[misc]
            assert isinstance(stream.exception(), DeadlineExceededError)
            assert stream.code() is Code.DEADLINE_EXCEEDED
            assert server.was_cancelled(number)
        assert len(recorder.events) == STREAMS


def test_a_thread_that_waits_for_the_code_is_told_of_the_silence(server: Shop) -> None:
    codes: list[Any] = []
    with resilience.grpc.insecure_channel(server.target, Pipeline(Timeout(10.0, idle=0.3))) as channel:
        stream = method_of(channel, "unary_stream")(b"x")
        next(stream)
        waiting = threading.Thread(target=lambda: codes.append(stream.code()))
        waiting.start()
        assert isinstance(read(stream), DeadlineExceededError)
        waiting.join(5.0)
    assert codes == [Code.DEADLINE_EXCEEDED]


def test_the_deadline_of_a_caller_in_a_hurry_is_no_failure(server: Shop) -> None:
    breaker = never_open()
    with resilience.grpc.insecure_channel(server.target, Pipeline(Timeout(10.0), breaker)) as channel:
        for number in range(1, STREAMS + 1):
            assert isinstance(read(method_of(channel, "unary_stream")(b"x", timeout=0.05)), DeadlineExceededError)
            assert server.was_cancelled(number)
        assert score(breaker) == (0, 0)


def test_the_deadline_of_the_pipeline_is_a_failure_also_if_nothing_is_read(server: Shop) -> None:
    breaker = never_open()
    pipeline = Pipeline(Timeout(0.3), breaker)
    with (
        resilience.grpc.insecure_channel(server.target, pipeline) as channel,
        Recorder(pipeline, events=[TimedOut]) as recorder,
    ):
        stream = method_of(channel, "unary_stream")(b"x")
        next(stream)
        assert wait_until(lambda: score(breaker) == (1, 1))
        assert isinstance(stream.exception(), DeadlineExceededError)
        assert isinstance(read(stream), DeadlineExceededError)
        assert len(recorder.events) == 1


def test_a_stream_that_dies_is_a_failure_and_one_that_is_cancelled_is_not(server: Shop) -> None:
    breaker = never_open()

    def dies(rpc: Rpc, request: Any) -> Iterator[bytes]:
        yield b"0"
        rpc.fail()

    with resilience.grpc.insecure_channel(server.target, Pipeline(Timeout(10.0), breaker)) as channel:
        get = method_of(channel, "unary_stream")
        server.handlers["unary_stream"] = dies
        assert read(get(b"x")).code() is Code.UNAVAILABLE
        assert wait_until(lambda: score(breaker) == (1, 1))
        server.handlers["unary_stream"] = two_then_fail  # with an answer
        assert read(get(b"x")).code() is Code.NOT_FOUND
        assert wait_until(lambda: score(breaker) == (2, 1))
        server.handlers["unary_stream"] = two_then_hang
        stream = get(b"x")
        next(stream)
        stream.cancel()
        assert wait_until(lambda: score(breaker) == (3, 1))
        stream = get(b"x")
        next(stream)
        del stream
        assert server.was_cancelled(4)
    assert score(breaker) == (3, 1)


@pytest.mark.parametrize("phase", ["first", "attempt", "total"])
def test_each_bound_holds_for_the_first_response(server: Shop, phase: str) -> None:
    server.handlers["unary_stream"] = hang
    breaker = never_open()
    policies = {
        "first": (Timeout(10.0, first=0.2), breaker),
        "attempt": (Timeout(10.0), Retry(1), breaker, Timeout(0.2)),
        "total": (Timeout(0.2), Retry(), breaker),
    }
    with resilience.grpc.insecure_channel(server.target, Pipeline(*policies[phase])) as channel:
        started = time.monotonic()
        error = read(method_of(channel, "unary_stream")(b"x"))
        assert 0.19 <= time.monotonic() - started <= at_most(0.2)
        assert isinstance(error, DeadlineExceededError)
        assert server.was_cancelled()
        assert score(breaker) == (1, 1)


def test_the_timeout_of_an_attempt_does_not_bound_what_follows_the_first_response(server: Shop) -> None:
    def slow(rpc: Rpc, request: Any) -> Iterator[bytes]:
        yield b"0"
        time.sleep(0.4)  # a server, not the library
        yield b"1"

    server.handlers["unary_stream"] = slow
    with resilience.grpc.insecure_channel(server.target, Pipeline(Timeout(10.0), Retry(), Timeout(0.3))) as channel:
        assert [*method_of(channel, "unary_stream")(b"x")] == [b"0", b"1"]


def test_a_first_response_at_the_very_deadline_is_there_or_too_late(server: Shop) -> None:
    """The stream may have been cancelled when its response is taken; the caller has not cancelled it."""

    def slow(rpc: Rpc, request: Any) -> Iterator[bytes]:
        time.sleep(0.02)  # a server, not the library
        yield b"0"
        yield b"1"

    server.handlers["unary_stream"] = slow
    pipeline = Pipeline(Timeout(20.0), Retry(1), Timeout(0.0215))
    outcomes: set[Any] = set()
    with resilience.grpc.insecure_channel(server.target, pipeline) as channel:
        for _ in range(40):
            error = read(method_of(channel, "unary_stream")(b"x"))
            outcomes.add(error if error is None else type(error).__name__)
    assert outcomes <= {None, "DeadlineExceededError"}
