"""Our errors as errors of gRPC: codes, details, copies and pickles, in the synchronous API and on `grpc.aio`."""

import copy
import pickle
from typing import Any

import grpc
import pytest

from resilience import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    RejectedError,
    RejectReason,
)
from resilience.grpc._errors import AioResilienceRpcError, ResilienceRpcError, make_rpc_error
from tests.grpc.helpers import Code

OURS: list[tuple[type[Any], Code]] = [
    (RejectedError, Code.UNAVAILABLE),
    (CircuitOpenError, Code.UNAVAILABLE),
    (BulkheadFullError, Code.RESOURCE_EXHAUSTED),
    (RateLimitedError, Code.RESOURCE_EXHAUSTED),
    (DeadlineExceededError, Code.DEADLINE_EXCEEDED),
]


@pytest.mark.parametrize(("kind", "code"), OURS)
@pytest.mark.parametrize("flavour", [ResilienceRpcError, AioResilienceRpcError])
def test_our_errors_are_those_of_grpc_too(kind: type[Any], code: Code, flavour: type[Any]) -> None:
    error: Any = kind("no luck", policy="p")
    same = error
    make_rpc_error(error, flavour)

    assert error is same
    assert issubclass(type(error), kind)
    assert issubclass(type(error), grpc.RpcError)
    assert issubclass(type(error), grpc.aio.AioRpcError) is (flavour is AioResilienceRpcError)
    assert (type(error).__name__, type(error).__module__) == (kind.__name__, kind.__module__)
    assert error.code() is code
    assert error.details() == str(error) == "no luck"
    assert list(error.initial_metadata()) == list(error.trailing_metadata()) == []
    assert error.debug_error_string() == ""
    assert repr(error) == f"{kind.__name__}('no luck')"


@pytest.mark.parametrize(("kind", "code"), OURS)
@pytest.mark.parametrize("flavour", [ResilienceRpcError, AioResilienceRpcError])
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_our_errors_copy_and_pickle(kind: type[Any], code: Code, flavour: type[Any], again: Any) -> None:
    error = kind("no luck", policy="p", pipeline="q")
    make_rpc_error(error, flavour)
    other = again(error)

    assert type(other) is type(error)
    assert (str(other), other.policy, other.pipeline, other.code()) == ("no luck", "p", "q", code)
    assert other.unprocessed is error.unprocessed


def test_our_errors_are_a_finished_call_and_future() -> None:
    error: Any = CircuitOpenError("no luck", reason=RejectReason.OPEN)
    make_rpc_error(error, ResilienceRpcError)
    told: list[Any] = []
    error.add_done_callback(told.append)

    assert issubclass(type(error), grpc.Call)
    assert issubclass(type(error), grpc.Future)
    assert error.exception() is error
    with pytest.raises(CircuitOpenError):
        error.result()
    assert error.traceback() is error.__traceback__
    assert told == [error]
    assert (error.done(), error.running(), error.cancelled(), error.is_active()) == (True, False, False, False)
    assert (error.cancel(), error.add_callback(lambda: None), error.time_remaining()) == (False, False, None)


def test_an_error_is_adopted_once() -> None:
    error = CircuitOpenError()
    make_rpc_error(error, ResilienceRpcError)
    kind = type(error)
    make_rpc_error(error, AioResilienceRpcError)

    assert type(error) is kind
