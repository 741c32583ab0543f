"""Outcomes of an RPC that are not grpc's own: a substitute's answer, and errors of interceptors."""

from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Pipeline, Retry
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, Rpc, stub, ways
from tests.grpc.servers import Service, stub_of
from tests.support.policies import Instead

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("as_future", [True, False])
def test_a_substitute_comes_out_as_an_answer(service: Service, as_future: bool) -> None:
    service.script("Get", UNAVAILABLE)
    get = stub(service, Pipeline(Instead(b"instead"), Retry(2, wait=SOON)))
    if as_future:
        call = get.future(b"x")
        assert call.result() == b"instead"
    else:
        response, call = get.with_call(b"x")
        assert response == b"instead"
    assert call.code() is Code.OK
    assert call.details() == ""
    assert (call.exception(), call.traceback()) == (None, None)
    assert list(call.trailing_metadata()) == []
    assert get(b"x") == b"instead"


def test_an_error_that_is_not_of_grpc_is_kept(service: Service) -> None:
    class Broken(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            raise KeyError("mine")

    ours = resilience.grpc.client_interceptors(Pipeline(Retry()))
    channel = grpc.intercept_channel(grpc.insecure_channel(service.target), *ours, Broken())
    future = stub_of(channel, "Get").future(b"x")

    with pytest.raises(KeyError, match="mine"):
        future.result(5)
    assert isinstance(future.exception(), KeyError)
    assert future.traceback() is not None
    assert future.code() is Code.INTERNAL
    assert future.details() == "Exception raised while intercepting the RPC"


@ways
def test_an_error_of_somebody_elses_making_comes_out(service: Service, way: Rpc) -> None:
    class Mine(grpc.RpcError):
        """It has neither a code nor anything else."""

    class Broken(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            raise Mine

    ours = resilience.grpc.client_interceptors(Pipeline(Retry()))
    channel = grpc.intercept_channel(grpc.insecure_channel(service.target), *ours, Broken())

    with pytest.raises(Mine):
        way(stub_of(channel, "Get"), b"x")
