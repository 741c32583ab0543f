"""The deadlines of a unary RPC: the caller's, the ambient one, that of an attempt, and the server's own."""

import time

import grpc
import pytest

from resilience import Bulkhead, DeadlineExceededError, Pipeline, Retry, Timeout, backoff, deadline_after
from resilience.events import TimedOut
from resilience.grpc._failures import code_of
from resilience.testing import Recorder
from tests.grpc.helpers import SOON, Code, Rpc, stub, ways
from tests.grpc.servers import Abort, Service, wait_until
from tests.support.timing import at_most

pytestmark = pytest.mark.slow


@ways
def test_the_timeout_of_the_caller_is_the_deadline_of_all_attempts(service: Service, way: Rpc) -> None:
    service.script("Get", Abort(Code.UNAVAILABLE, after=0.1))
    pipeline = Pipeline(Retry(50, wait=backoff.fixed(0.02), budget=None))
    started = time.monotonic()

    with pytest.raises(grpc.RpcError):
        way(stub(service, pipeline), b"x", timeout=0.5)
    assert time.monotonic() - started <= at_most(0.5)
    left = [seen.time_remaining for seen in service.seen]
    assert len(left) > 1
    assert left == sorted(left, reverse=True)
    assert left[0] <= 0.55
    assert left[1] <= 0.45


@ways
def test_an_attempt_that_is_cut_raises_our_error(service: Service, way: Rpc) -> None:
    service.script("Get", service.stall())
    pipeline = Pipeline(Timeout(5), Retry(2, wait=SOON), Timeout(0.1))

    with Recorder(pipeline) as recorder, pytest.raises(DeadlineExceededError) as caught:
        way(stub(service, pipeline), b"x")
    assert isinstance(caught.value, grpc.RpcError)
    assert code_of(caught.value) is Code.DEADLINE_EXCEEDED
    assert caught.value.details() == str(caught.value)
    assert "/shop.Shop/Get" in str(caught.value)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert not caught.value.unprocessed
    assert service.count("Get") == 2
    assert sum(isinstance(event, TimedOut) for event in recorder.events) == 2


@ways
def test_the_deadline_of_the_caller_raises_our_error_too(service: Service, way: Rpc) -> None:
    service.script("Get", service.stall())
    started = time.monotonic()

    with pytest.raises(DeadlineExceededError, match="the caller's deadline"):
        way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x", timeout=0.1)
    assert time.monotonic() - started <= at_most(0.1)
    assert service.count("Get") == 1


@ways
def test_the_ambient_deadline_counts(service: Service, way: Rpc) -> None:
    with deadline_after(1.0):
        way(stub(service, Pipeline(Timeout(30), Retry())), b"x", timeout=20)
    assert service.seen[0].time_remaining <= 1.1


@ways
@pytest.mark.parametrize("timeout", [0, -1.0])
def test_where_no_time_is_left_nothing_is_called(service: Service, way: Rpc, timeout: float) -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        way(stub(service, Pipeline(Retry())), b"x", timeout=timeout)
    assert caught.value.unprocessed
    assert isinstance(caught.value, grpc.RpcError)
    assert service.seen == []


@ways
def test_a_deadline_that_the_server_exceeded_is_not_ours(service: Service, way: Rpc) -> None:
    service.script("Get", Abort(Code.DEADLINE_EXCEEDED), b"yes")

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Timeout(5), Retry(3, wait=SOON))), b"x")
    assert not isinstance(caught.value, DeadlineExceededError)
    assert service.count("Get") == 1


def test_a_thread_that_is_left_behind_leaves_its_attempt(service: Service) -> None:
    service.script("Get", service.stall(0.3))
    bulkhead = Bulkhead(1)

    with pytest.raises(DeadlineExceededError) as caught:
        stub(service, Pipeline(bulkhead, Timeout(0.1, thread=True)))(b"x")
    assert isinstance(caught.value, grpc.RpcError)
    assert wait_until(lambda: bulkhead.in_flight == 0)
