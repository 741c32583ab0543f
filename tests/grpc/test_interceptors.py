"""Interceptors on both sides of ours, and the metadata that every attempt of a unary RPC has."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import CircuitBreaker, CircuitOpenError, Pipeline, Retry
from resilience.grpc._failures import code_of
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, Rpc, future, plain, stub, ways, with_call
from tests.grpc.servers import Abort, Service, stub_of, wait_until

pytestmark = pytest.mark.slow


def test_interceptors_further_in_see_attempts_those_further_out_calls(service: Service) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")
    told: list[str] = []

    class Count(grpc.UnaryUnaryClientInterceptor):
        def __init__(self, name: str) -> None:
            self.name = name

        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            told.append(self.name)
            details = client_call_details._replace(
                metadata=(*(client_call_details.metadata or ()), ("x-by", self.name))
            )
            outcome = continuation(details, request)
            told.append(f"{self.name} {outcome.code().name}")
            return outcome

    ours = resilience.grpc.client_interceptors(Pipeline(Retry(3, wait=SOON)), idempotent=True)
    channel = grpc.insecure_channel(service.target, options=resilience.grpc.channel_options())
    get = stub_of(grpc.intercept_channel(channel, Count("out"), *ours, Count("in")), "Get")

    assert get(b"x") == b"yes"
    inner = ["in", "in UNAVAILABLE", "in", "in UNAVAILABLE", "in", "in OK"]
    assert told == ["out", *inner, "out OK"]
    assert service.seen[-1].metadata["x-by"] == "in"

    told.clear()
    service.script("Get", Abort(Code.NOT_FOUND))
    with pytest.raises(grpc.RpcError) as caught:
        get(b"x")
    assert told == ["out", "in", "in NOT_FOUND", "out NOT_FOUND"]
    assert code_of(caught.value) is Code.NOT_FOUND


@ways
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_every_attempt_has_the_metadata_that_the_caller_gave(
    service: Service, way: Rpc, kind: Callable[[Any], Any]
) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")
    given = [("authorization", "token"), ("x-b", "1"), ("x-b", "2")]

    way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x", metadata=kind(given))
    assert [[pair for pair in seen.pairs if pair in given] for seen in service.seen] == [given] * 3


@ways
def test_what_an_interceptor_adds_to_the_metadata_of_an_attempt_is_not_in_the_next(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")

    class Add(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            client_call_details.metadata.append(("x-a", "1"))
            return continuation(client_call_details, request)

    ours = resilience.grpc.client_interceptors(Pipeline(Retry(3, wait=SOON)), idempotent=True)
    channel = grpc.insecure_channel(service.target, options=resilience.grpc.channel_options())
    given = [("x-b", "2")]
    way(stub_of(grpc.intercept_channel(channel, *ours, Add()), "Get"), b"x", metadata=given)

    assert [seen.pairs.count(("x-a", "1")) for seen in service.seen] == [1, 1, 1]
    assert given == [("x-b", "2")]


def test_an_interceptor_further_out_gets_our_error_as_an_outcome(service: Service) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    codes: list[Any] = []

    class Look(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            outcome = continuation(client_call_details, request)
            outcome.add_done_callback(lambda done: codes.append(done.code()))
            return outcome

    channel = resilience.grpc.insecure_channel(service.target, Pipeline(breaker))
    get = stub_of(grpc.intercept_channel(channel, Look()), "Get")

    for way in (plain, with_call, future):
        with pytest.raises(CircuitOpenError):
            way(get, b"x")
    assert wait_until(lambda: len(codes) == 3)
    assert set(codes) == {Code.UNAVAILABLE}
