"""The guard of a channel: which methods are idempotent, what a call is made of, and the advice about errors."""

import re
from typing import Any

import grpc
import pytest

from resilience import Pipeline, Retry
from resilience._util import log_once
from resilience.grpc._errors import ResilienceRpcError
from resilience.grpc._guard import ENDLESS, Guard, matcher
from tests.grpc.helpers import Code, failed


def unlisted(error: Exception, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of the error of an attempt that nobody lists."""
    log_once.forget()
    pipeline = Pipeline(Retry(), failures=ConnectionError)
    guard = Guard(pipeline, None, ResilienceRpcError)

    def attempt() -> None:
        guard.examine(error, disconnected=False)
        raise error

    with pytest.raises(type(error)):
        guard.run(guard.call("/shop.Shop/Get", None, attempt))
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


@pytest.mark.parametrize(
    ("idempotent", "expected"),
    [
        (None, [None, None, None]),
        (True, [True, True, True]),
        (False, [False, False, False]),
        ("/shop.Shop/Get*", [True, True, False]),
        (["/shop.Shop/GetPrice", "*/Buy"], [True, False, True]),
        (lambda method: method.endswith("y"), [False, False, True]),
    ],
)
def test_methods_are_matched(idempotent: Any, expected: list[bool | None]) -> None:
    is_idempotent = matcher(idempotent)

    assert [is_idempotent(f"/shop.Shop/{name}") for name in ("GetPrice", "GetItem", "Buy")] == expected


def test_a_predicate_that_raises_means_no(caplog: pytest.LogCaptureFixture) -> None:
    assert matcher(lambda method: 1 / 0)("/shop.Shop/Get") is False
    assert "idempotent predicate" in caplog.text


@pytest.mark.parametrize("answer", [1, "yes", object(), re.match("a", "a"), (x for x in "a")])
def test_a_predicate_that_returns_no_bool_means_no(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    log_once.forget()

    assert matcher(lambda method: answer)("/shop.Shop/Get") is False
    assert "what the idempotent predicate returns must be True or False" in caplog.text


def test_a_predicate_that_does_not_know_means_no(caplog: pytest.LogCaptureFixture) -> None:
    assert matcher(lambda method: None)("/shop.Shop/Get") is False
    assert caplog.text == ""


async def later(method: str) -> bool:
    return True


class Later:
    async def __call__(self, method: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("idempotent", "error"),
    [
        *[(7, TypeError), ([7], TypeError), (b"/shop.Shop/Get", TypeError)],
        *[({"/shop.Shop/Put": False}, TypeError), (later, TypeError), (Later(), TypeError)],
        *[("Get*", ValueError), ("/shop.Shop", ValueError), ("/shop.Shop/", ValueError), ("", ValueError)],
        *[(["/shop.Shop/Get", "/shop.Shop"], ValueError), ("[/]shop.Shop/Get", ValueError)],
    ],
)
def test_what_can_match_nothing_is_refused(idempotent: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="idempotent"):
        matcher(idempotent)


@pytest.mark.parametrize("pattern", ["*", "*/Get", "/*", "/shop.*", "/shop.Shop/Ge?", "/shop.Shop/[Gg]et", "*/G*"])
def test_patterns_with_wildcards_are_taken(pattern: str) -> None:
    assert matcher(pattern)("/shop.Shop/Get") is True


def test_idempotent_falls_back_to_what_the_pipeline_is_bound_with() -> None:
    def known(pipeline: Any, idempotent: Any) -> bool | None:
        call = Guard(pipeline, idempotent, ResilienceRpcError).call("/shop.Shop/Get", None, lambda: None)
        return call.idempotent

    assert known(Retry(), None) is False
    assert known(Retry().bind(idempotent=True), None) is True
    assert known(Retry().bind(idempotent=True), "/other/*") is False


def test_a_call_knows_its_method_and_target() -> None:
    guard = Guard(Retry(), None, ResilienceRpcError, "quotes:50051")
    call = guard.call("/shop.Shop/Get", None, lambda: None)

    assert (call.operation, call.target) == ("/shop.Shop/Get", "quotes:50051")
    assert (call.copy().operation, call.copy().target) == (call.operation, call.target)
    assert guard.call("/shop.Shop/Get", None, lambda: None).options is call.options


def test_what_bind_says_of_the_target_wins_over_that_of_the_channel() -> None:
    guard = Guard(Retry().bind(target="shop-prod"), None, ResilienceRpcError, "127.0.0.1:50051")

    assert guard.call("/shop.Shop/Get", None, lambda: None).target == "shop-prod"


def test_methods_that_somebody_makes_up_are_not_remembered() -> None:
    guard = Guard(Retry(), "/a/1*", ResilienceRpcError)
    calls = [guard.call(f"/a/{number}", None, lambda: None) for number in range(2000)]

    assert calls[-1].idempotent is True or calls[-1].idempotent is False
    assert guard.call("/a/1999", None, lambda: None).idempotent is True
    assert guard.call("/a/2999", None, lambda: None).idempotent is False


@pytest.mark.parametrize("timeout", [None, float("inf"), ENDLESS, 9.22e18])
def test_a_timeout_without_end_is_none(timeout: float | None) -> None:
    call = Guard(Retry(), None, ResilienceRpcError).call("/a/b", timeout, lambda: None)

    assert call.deadline == call.total_deadline == float("inf")


@pytest.mark.parametrize(
    ("timeout", "error"), [("1", TypeError), (True, TypeError), (b"", TypeError), (float("nan"), ValueError)]
)
def test_a_timeout_is_a_number(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout must be a number of seconds"):
        Guard(Retry(), None, ResilienceRpcError).call("/a/b", timeout, lambda: None)
