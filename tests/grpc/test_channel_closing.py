"""RPCs whose channel is closed: before them, in a queue, between two attempts, and during one."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, CircuitBreaker, Pipeline, Retry, backoff
from resilience._util import log_once
from resilience.events import RetryScheduled
from resilience.grpc._failures import code_of
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, Rpc, future, plain, ways, with_call
from tests.grpc.servers import OPTIONS, Service, stub_of, wait_until
from tests.support.timing import at_most

pytestmark = pytest.mark.slow


@ways
def test_a_closed_channel_is_nobodys_failure(service: Service, way: Rpc) -> None:
    channel = resilience.grpc.insecure_channel(service.target, Pipeline(Retry(3, wait=SOON)), idempotent=True)
    get = stub_of(channel, "Get")
    channel.close()

    with pytest.raises(ValueError, match="closed"):
        way(get, b"x")


def closed_between_attempts(service: Service, way: Rpc) -> grpc.RpcError:
    """Return the error of a call whose channel is closed when its first attempt has failed."""
    service.script("Get", UNAVAILABLE)
    pipeline = Pipeline(Bulkhead(1), Retry(3, wait=backoff.fixed(0.01)))
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True, options=OPTIONS)

    def close(event: object) -> None:
        channel.close()

    with pipeline.subscribe(close, events=[RetryScheduled]), pytest.raises(grpc.RpcError) as caught:
        way(stub_of(channel, "Get"), b"x")
    assert service.count("Get") == 1
    return caught.value


@pytest.mark.parametrize("way", [plain, with_call])
def test_a_blocking_call_whose_channel_is_closed_between_two_attempts_raises_the_last_failure(
    service: Service, way: Rpc
) -> None:
    error = closed_between_attempts(service, way)

    assert code_of(error) is Code.UNAVAILABLE
    assert error.__notes__ == ["resilience: attempt 2 not made: ChannelClosed"]


def test_a_future_whose_channel_is_closed_between_two_attempts_is_cancelled(service: Service) -> None:
    error: Any = closed_between_attempts(service, future)

    assert (error.code(), error.details()) == (Code.CANCELLED, "Channel closed!")


@pytest.mark.parametrize("arity", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_a_call_that_waits_in_a_queue_ends_at_once_when_the_channel_is_closed(service: Service, arity: str) -> None:
    bulkhead = Bulkhead(1, queue=5, max_wait=60.0)
    channel = resilience.grpc.insecure_channel(service.target, bulkhead, options=OPTIONS)
    stub = getattr(channel, arity)("/shop.Shop/Get")
    request = iter([b"x"]) if arity.startswith("stream") else b"x"
    with bulkhead:
        call = stub.future(request) if arity.endswith("unary") else stub(request)
        assert wait_until(lambda: bulkhead.queued == 1)
        started = time.monotonic()
        channel.close()
        assert (call.code(), call.details()) == (Code.CANCELLED, "Channel closed!")
        assert time.monotonic() - started <= at_most(0.0)
    assert wait_until(lambda: not [one for one in threading.enumerate() if one.name == "resilience-future"])


def test_a_blocking_call_that_waits_in_a_queue_when_the_channel_is_closed_is_cancelled(service: Service) -> None:
    bulkhead = Bulkhead(1, queue=5, max_wait=60.0)
    channel = resilience.grpc.insecure_channel(service.target, bulkhead, options=OPTIONS)
    with bulkhead, ThreadPoolExecutor(1) as pool:
        call = pool.submit(stub_of(channel, "Get"), b"x")
        assert wait_until(lambda: bulkhead.queued == 1)
        channel.close()
        bulkhead.update(limit=2)
        error: Any = call.exception(5)

    assert (type(error).__name__, error.code()) == ("LocalRpcError", Code.CANCELLED)


@ways
def test_there_is_no_advice_about_a_closed_channel(
    service: Service, way: Rpc, caplog: pytest.LogCaptureFixture
) -> None:
    log_once.forget()
    channel = resilience.grpc.insecure_channel(service.target, Pipeline(Retry()), options=OPTIONS)
    get = stub_of(channel, "Get")
    channel.close()

    with pytest.raises(ValueError, match="closed"):
        way(get, b"x")
    assert caplog.text == ""


def test_a_channel_that_is_closed_under_a_probe_does_not_close_the_breaker(service: Service) -> None:
    service.script("Get", UNAVAILABLE, service.stall())
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.01, half_open_calls=1)
    channel = resilience.grpc.insecure_channel(service.target, Pipeline(breaker), options=OPTIONS)
    get = stub_of(channel, "Get")
    with pytest.raises(grpc.RpcError):
        get(b"x")
    assert wait_until(lambda: breaker.state == "half_open")
    probe = get.future(b"x")
    assert wait_until(lambda: service.count("Get") == 2)
    channel.close()

    assert probe.code() is Code.CANCELLED
    snapshot = breaker.snapshot()
    assert (snapshot["state"], snapshot["opens"]) == ("half_open", 1)
