"""The unary RPC of the synchronous API against a real server: what is retried, and which outcome comes out."""

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import (
    Allowlist,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Pipeline,
    Retry,
    Timeout,
)
from resilience.grpc._failures import code_of
from resilience.grpc._future import RpcFuture
from resilience.grpc._interceptors import SyncInterceptor
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, Rpc, stub, ways
from tests.grpc.servers import OPTIONS, Abort, Service, stub_of, wait_until

pytestmark = pytest.mark.slow


@ways
def test_a_call_passes_through(service: Service, way: Rpc) -> None:
    assert way(stub(service, Pipeline(Timeout(2), Retry(), Bulkhead(1), CircuitBreaker())), b"x") == b"x"


@ways
def test_an_idempotent_method_is_retried(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE, Abort(Code.ABORTED), b"yes")

    assert way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x") == b"yes"
    assert service.count("Get") == 3


@ways
def test_any_other_method_is_not(service: Service, way: Rpc) -> None:
    service.script("Put", UNAVAILABLE, b"yes")

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x")
    assert code_of(caught.value) is Code.UNAVAILABLE
    assert "not idempotent" in caught.value.__notes__[0]
    assert service.count("Put") == 1


@ways
@pytest.mark.parametrize(
    "answer", [Abort(Code.UNKNOWN), Abort(Code.RESOURCE_EXHAUSTED), Abort(Code.NOT_FOUND), Abort(Code.INTERNAL)]
)
def test_what_is_not_to_be_retried_comes_out_at_once(service: Service, way: Rpc, answer: Abort) -> None:
    service.script("Get", answer, b"yes")

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x")
    assert code_of(caught.value) is answer.code
    assert service.count("Get") == 1


@ways
def test_a_pushback_permits_a_retry_of_what_is_not_idempotent_and_is_waited_for(service: Service, way: Rpc) -> None:
    service.script("Put", Abort(Code.RESOURCE_EXHAUSTED, pushback="60"), Abort(Code.UNKNOWN, pushback="0"), b"yes")
    started = time.monotonic()

    assert way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x") == b"yes"
    assert time.monotonic() - started >= 0.06
    assert service.count("Put") == 3


@ways
def test_a_pushback_permits_nothing_where_hints_are_ignored(service: Service, way: Rpc) -> None:
    service.script("Put", Abort(Code.UNAVAILABLE, pushback="60"), b"yes")
    service.script("Get", Abort(Code.UNAVAILABLE, pushback="60000"), b"yes")
    pipeline = Pipeline(Retry(3, wait=SOON, max_retry_after=0))

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, pipeline, "Put"), b"x")
    assert "not idempotent" in caught.value.__notes__[0]
    assert service.count("Put") == 1
    assert way(stub(service, pipeline), b"x") == b"yes"


@ways
@pytest.mark.parametrize("pushback", ["-1", "soon"])
def test_a_pushback_forbids_a_retry_of_what_is_idempotent(service: Service, way: Rpc, pushback: str) -> None:
    service.script("Get", Abort(Code.UNAVAILABLE, pushback=pushback), b"yes")

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x")
    assert service.count("Get") == 1


@ways
def test_the_errors_of_the_server_come_out_as_they_are_with_our_note(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE)

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Retry(2, wait=SOON))), b"secret")
    assert type(caught.value).__module__ == "grpc._channel"
    assert caught.value.details() == "on purpose"
    assert len(caught.value.__notes__) == 1
    assert caught.value.__notes__[0].startswith("resilience: retry gave up after 2 attempts")


@ways
def test_an_open_breaker_is_unavailable(service: Service, way: Rpc) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()

    with pytest.raises(CircuitOpenError) as caught:
        way(stub(service, Pipeline(Retry(), breaker)), b"x")
    assert isinstance(caught.value, grpc.RpcError)
    assert code_of(caught.value) is Code.UNAVAILABLE
    assert service.seen == []


@ways
def test_a_full_bulkhead_is_exhausted(service: Service, way: Rpc) -> None:
    service.script("Get", service.stall())
    bulkhead = Bulkhead(1)
    get = stub(service, Pipeline(bulkhead))
    held = get.future(b"x")
    assert wait_until(lambda: service.count("Get") == 1)

    with pytest.raises(BulkheadFullError) as caught:
        way(get, b"y")
    assert code_of(caught.value) is Code.RESOURCE_EXHAUSTED
    held.cancel()
    assert wait_until(lambda: bulkhead.in_flight == 0)


@ways
def test_the_failures_of_the_pipeline_replace_those_of_grpc(service: Service, way: Rpc) -> None:
    service.script("Get", Abort(Code.NOT_FOUND), b"yes")
    pipeline = Pipeline(Retry(3, wait=SOON), failures=resilience.grpc.rpc_failures([Code.NOT_FOUND]))

    assert way(stub(service, pipeline), b"x") == b"yes"


@ways
def test_a_response_that_is_listed_is_retried(service: Service, way: Rpc) -> None:
    service.script("Get", b"busy", b"yes")
    pipeline = Pipeline(Retry(3, wait=SOON), failures=Allowlist.of_results(lambda response: response == b"busy"))

    assert way(stub(service, pipeline), b"x") == b"yes"
    service.script("Get", b"busy")
    assert way(stub(service, pipeline), b"x") == b"busy"
    assert service.count("Get") == 5


def numbered(number: str) -> Callable[[Any], bytes]:
    def answer(context: Any) -> bytes:
        context.set_trailing_metadata((("x-number", number),))
        return b"busy"

    return answer


@pytest.mark.parametrize("as_future", [True, False])
def test_the_call_is_that_of_the_last_attempt_also_where_all_return_the_same_object(
    service: Service, as_future: bool
) -> None:
    service.script("Get", numbered("1"), numbered("2"))
    pipeline = Pipeline(Retry(2, wait=SOON), failures=Allowlist.of_results(lambda response: response == ""))
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True, options=OPTIONS)
    get: Any = channel.unary_unary("/shop.Shop/Get", response_deserializer=lambda response: "")

    call = get.future(b"x") if as_future else get.with_call(b"x")[1]
    assert ("x-number", "2") in [(key, value) for key, value in call.trailing_metadata()]


def test_a_plain_call_runs_in_the_thread_of_its_caller(service: Service) -> None:
    seen: list[int] = []

    class Note(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(threading.get_ident())
            return continuation(client_call_details, request)

    channel = grpc.insecure_channel(service.target)
    guarded = grpc.intercept_channel(channel, *resilience.grpc.client_interceptors(Pipeline(Retry())), Note())
    get = stub_of(guarded, "Get")
    get(b"x")
    get.with_call(b"x")
    get.future(b"x").result()

    assert seen[:2] == [threading.get_ident()] * 2
    assert seen[2] != threading.get_ident()


def test_where_nobody_knows_whether_to_block_a_future_is_returned(service: Service) -> None:
    channel = grpc.insecure_channel(service.target)
    ours, *_ = resilience.grpc.client_interceptors(Pipeline(Retry()))
    assert isinstance(ours, SyncInterceptor)

    class Wrap(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return ours.intercept_unary_unary(
                lambda details, message: continuation(details, message), client_call_details, request
            )

    get = stub_of(grpc.intercept_channel(channel, Wrap()), "Get")
    response, call = get.with_call(b"x")

    assert response == b"x"
    assert isinstance(call, RpcFuture)
    assert call.code() is Code.OK
    assert get.future(b"y").result(5) == b"y"
