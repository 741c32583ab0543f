"""The guard of a channel: which methods are idempotent, what a call is made of, and the advice about errors."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from resilience import Pipeline, Retry
from resilience._util import log_once
from resilience.grpc._call import RpcCall
from resilience.grpc._errors import ResilienceRpcError
from resilience.grpc._guard import ENDLESS, Guard
from resilience.grpc._requests import UnaryRequest
from tests.grpc.helpers import Code, failed


def call_of(
    guard: Guard,
    method: str = "/shop.Shop/Get",
    timeout: Any = None,
    attempt: Callable[[Any], Any] = lambda call: None,
) -> RpcCall:
    """Return a call of a method."""
    return guard.call(RpcCall, guard.options(method), timeout, attempt, UnaryRequest(b"x"))


def unlisted(error: Exception, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of the error of an attempt that nobody lists."""
    log_once.forget()
    pipeline = Pipeline(Retry(), failures=ConnectionError)
    guard = Guard(pipeline, None, ResilienceRpcError)

    def attempt(call: object) -> None:
        guard.examine(error, disconnected=False)
        raise error

    with pytest.raises(type(error)):
        guard.run(call_of(guard, attempt=attempt))
    return caplog.text


def test_the_advice_about_an_unlisted_code_is_not_to_list_a_class(caplog: pytest.LogCaptureFixture) -> None:
    said = unlisted(failed(Code.NOT_FOUND), caplog)

    assert "failures=resilience.grpc.RPC_FAILURES" in said
    assert "resilience.grpc.rpc_failures(codes=...)" in said
    assert "| AioRpcError" not in said


@pytest.mark.parametrize(
    "error",
    [
        failed(Code.INTERNAL, "Exception serializing request!"),
        failed(Code.INTERNAL, "Invalid metadata"),
        failed(Code.CANCELLED, "Channel closed!"),
        grpc.aio.UsageError("Channel is closed."),
        ValueError("Cannot invoke RPC on closed channel!"),
        ValueError("metadata was invalid: ..."),
    ],
)
def test_there_is_no_advice_about_the_callers_own_doing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert unlisted(error, caplog) == ""


def test_idempotent_falls_back_to_what_the_pipeline_is_bound_with() -> None:
    def known(pipeline: Any, idempotent: Any) -> bool | None:
        call = call_of(Guard(pipeline, idempotent, ResilienceRpcError))
        return call.idempotent

    assert known(Retry(), None) is False
    assert known(Retry().bind(idempotent=True), None) is True
    assert known(Retry().bind(idempotent=True), "/other/*") is False


def test_a_call_knows_its_method_and_target() -> None:
    guard = Guard(Retry(), None, ResilienceRpcError, "quotes:50051")
    call = call_of(guard)

    assert (call.operation, call.target) == ("/shop.Shop/Get", "quotes:50051")
    assert (call.copy().operation, call.copy().target) == (call.operation, call.target)
    assert call_of(guard).options is call.options


def test_what_bind_says_of_the_target_wins_over_that_of_the_channel() -> None:
    guard = Guard(Retry().bind(target="shop-prod"), None, ResilienceRpcError, "127.0.0.1:50051")

    assert call_of(guard).target == "shop-prod"


def test_methods_that_somebody_makes_up_are_not_remembered() -> None:
    guard = Guard(Retry(), "/a/1*", ResilienceRpcError)
    calls = [call_of(guard, f"/a/{number}") for number in range(2000)]

    assert calls[-1].idempotent is True or calls[-1].idempotent is False
    assert call_of(guard, "/a/1999").idempotent is True
    assert call_of(guard, "/a/2999").idempotent is False


@pytest.mark.parametrize("timeout", [None, float("inf"), float("nan"), ENDLESS, 9.22e18, 10**400])
def test_a_timeout_without_end_is_none(timeout: float | None) -> None:
    call = call_of(Guard(Retry(), None, ResilienceRpcError), timeout=timeout)

    assert call.deadline == call.total_deadline == float("inf")


@pytest.mark.parametrize("timeout", ["1", True, b"", [1]])
def test_a_timeout_is_a_number(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        call_of(Guard(Retry(), None, ResilienceRpcError), timeout=timeout)
