"""What is left of streams and of RPCs with streams of requests when they have ended: nothing, and no wrong score."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, Pipeline, Retry, Timeout
from tests.grpc.servers import wait_until
from tests.grpc.streaming import ARITIES, Rpc, Shop, method_of, shop
from tests.grpc.test_stream import hang, two_then_hang
from tests.grpc.test_stream_scoring import never_open, read, score
from tests.support.garbage import no_collection

pytestmark = pytest.mark.slow


def garbage_of_ours() -> list[str]:
    """Return the types of ours whose objects are left in cycles."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return sorted({type(one).__name__ for one in gc.garbage if type(one).__module__.startswith("resilience")})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def answer(rpc: Rpc, request: Any) -> bytes:
    return request if isinstance(request, bytes) else b"".join(request)


def answers(rpc: Rpc, request: Any) -> Iterator[bytes]:
    yield answer(rpc, request)
    yield b"more"


ANSWERS = {"unary_unary": answer, "stream_unary": answer, "unary_stream": answers, "stream_stream": answers}


def call(channel: grpc.Channel, arity: str, way: str) -> None:
    method = method_of(channel, arity)
    request: Any = b"x" if arity.startswith("unary") else iter([b"x"])
    if arity.endswith("stream"):
        assert list(method(request)) == [b"x", b"more"]
    else:
        assert (method.future(request).result() if way == "future" else method(request)) == b"x"


@pytest.mark.parametrize(
    ("arity", "way"), [*((arity, "plain") for arity in ARITIES), ("unary_unary", "future"), ("stream_unary", "future")]
)
def test_an_rpc_that_has_ended_leaves_no_cycle(arity: str, way: str) -> None:
    pipeline = Pipeline(Timeout(20.0, idle=5.0), Retry(), Bulkhead(5), Timeout(5.0))
    with shop(ANSWERS) as server, resilience.grpc.insecure_channel(server.target, pipeline) as channel:
        call(channel, arity, way)
        with no_collection():
            for _ in range(20):
                call(channel, arity, way)
            assert wait_until(lambda: not [one for one in threading.enumerate() if one.name == "resilience-future"])
            assert garbage_of_ours() == []


def by_maker(server: Shop, pipeline: Pipeline[Any]) -> grpc.Channel:
    return resilience.grpc.insecure_channel(server.target, pipeline, idempotent=True)


def by_interceptors(server: Shop, pipeline: Pipeline[Any]) -> grpc.Channel:
    channel = grpc.insecure_channel(server.target)
    return grpc.intercept_channel(channel, *resilience.grpc.client_interceptors(pipeline, idempotent=True))


@pytest.mark.parametrize("make", [by_maker, by_interceptors])
@pytest.mark.parametrize("handler", [hang, two_then_hang])
def test_a_stream_whose_channel_is_closed_says_nothing_about_the_server(
    make: Callable[[Shop, Pipeline[Any]], grpc.Channel], handler: Any
) -> None:
    breaker, bulkhead = never_open(), Bulkhead(5)
    with shop({"unary_stream": handler}) as server:
        channel = make(server, Pipeline(Timeout(20.0), Retry(), bulkhead, breaker))
        stream = method_of(channel, "unary_stream")(b"x")
        server.seen()
        if handler is two_then_hang:
            next(stream)
        channel.close()
        assert read(stream).code() is grpc.StatusCode.CANCELLED
        assert wait_until(lambda: bulkhead.in_flight == 0)
    assert score(breaker) == (0, 0)
    assert len(server.rpcs) == 1


def test_the_timer_ends_with_the_streams_that_it_watches() -> None:
    def timers() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "resilience-timer"]

    pipeline = Pipeline(Timeout(60.0, idle=30.0), Retry(), Timeout(30.0))
    with shop({"unary_stream": two_then_hang}) as server:
        with resilience.grpc.insecure_channel(server.target, pipeline) as channel:
            stream = method_of(channel, "unary_stream")(b"x")
            assert [next(stream), next(stream)] == [b"0", b"1"]
            assert timers()
        assert wait_until(lambda: not timers())
