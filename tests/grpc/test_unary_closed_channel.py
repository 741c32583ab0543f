"""A unary RPC whose channel is closed: before it, between two attempts, and during one."""

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, CircuitBreaker, Pipeline, Retry, backoff
from resilience._util import log_once
from resilience.events import RetryScheduled
from resilience.grpc._failures import code_of
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, Rpc, ways
from tests.grpc.servers import OPTIONS, Service, stub_of, wait_until

pytestmark = pytest.mark.slow


@ways
def test_a_closed_channel_is_nobodys_failure(service: Service, way: Rpc) -> None:
    channel = resilience.grpc.insecure_channel(service.target, Pipeline(Retry(3, wait=SOON)), idempotent=True)
    get = stub_of(channel, "Get")
    channel.close()

    with pytest.raises(ValueError, match="closed"):
        way(get, b"x")


@ways
def test_a_channel_that_is_closed_between_two_attempts_leaves_the_last_failure(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE)
    pipeline = Pipeline(Bulkhead(1), Retry(3, wait=backoff.fixed(0.01)))
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True, options=OPTIONS)

    def close(event: object) -> None:
        channel.close()

    with pipeline.subscribe(close, events=[RetryScheduled]), pytest.raises(grpc.RpcError) as caught:
        way(stub_of(channel, "Get"), b"x")
    assert code_of(caught.value) is Code.UNAVAILABLE
    assert caught.value.__notes__ == ["resilience: attempt 2 not made: ChannelClosed"]
    assert service.count("Get") == 1


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
