"""Connections that are refused: whatever the method does, a retry is safe then, but not where a server only says so."""

import grpc
import pytest

import resilience.grpc
from resilience import Pipeline, Retry
from resilience.events import RetryScheduled
from resilience.testing import Recorder
from tests.grpc.helpers import SOON, Code, Rpc, stub, ways
from tests.grpc.servers import OPTIONS, Abort, Service, refused_by, serving, stub_of

pytestmark = pytest.mark.slow


@ways
def test_a_refused_connection_is_retried_whatever_the_method_does(service: Service, way: Rpc) -> None:
    service.stop()
    pipeline = Pipeline(Retry(3, wait=SOON))

    with Recorder(pipeline) as recorder, pytest.raises(grpc.RpcError) as caught:
        way(stub(service, pipeline, "Put"), b"x")
    assert "gave up after 3 attempts" in caught.value.__notes__[0]
    assert [event.failure.unprocessed for event in recorder.events if isinstance(event, RetryScheduled)] == [True, True]


@ways
def test_a_refused_connection_that_a_server_tells_of_is_not(service: Service, way: Rpc) -> None:
    words = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50051: Connection refused"
    service.script("Put", Abort(Code.UNAVAILABLE, words), b"yes")

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x")
    assert service.count("Put") == 1


@ways
def test_the_words_of_a_refused_connection_are_not_believed_of_a_server_that_says_them(
    service: Service, way: Rpc
) -> None:
    service.script("Put", Abort(Code.UNAVAILABLE, refused_by(service.port)), b"yes")

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x")
    assert service.count("Put") == 1


@ways
def test_one_of_two_servers_that_cannot_reach_the_other_may_have_done_its_part(service: Service, way: Rpc) -> None:
    with serving() as peer:
        down = peer.port
    service.script("Put", Abort(Code.UNAVAILABLE, refused_by(down)), b"yes")
    target = f"ipv4:{service.target},127.0.0.1:{down}"
    channel = resilience.grpc.insecure_channel(target, Pipeline(Retry(3, wait=SOON)), options=OPTIONS)

    with pytest.raises(grpc.RpcError):
        way(stub_of(channel, "Put"), b"x")
    assert service.count("Put") == 1
