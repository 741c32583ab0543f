"""Allowlists of status codes: responses, and exceptions that were made of them."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

import resilience.httpx
from resilience import HTTP_FAILURES, Failure, FailureKind, Pipeline, Retry, backoff, status_failures
from resilience._outcome.http_status import TABLE
from resilience._outcome.status_failures import failure_of
from resilience.testing import virtual_time

TRANSIENT, TIMEOUT, OVERLOAD = FailureKind.TRANSIENT, FailureKind.TIMEOUT, FailureKind.OVERLOAD
LISTED = [408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529]


class StatusError(Exception):
    """As the exceptions of SDKs are."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"status {status}")
        self.response = SimpleNamespace(status_code=status, headers=headers or {})


def response(status: int, headers: dict[str, str] | None = None) -> Any:
    return SimpleNamespace(status_code=status, headers=headers or {})


@pytest.mark.parametrize("status", [101, 200, 204, 301, 304, 400, 401, 403, 404, 409, 422, 499, 501, 505, *LISTED])
def test_a_response_and_an_exception_mean_the_same(status: int) -> None:
    failures = status_failures()
    failure = failures.classify(response(status))

    assert (failure is not None) is (status in LISTED)
    assert failures.classify(StatusError(status)) == failure
    assert failures.is_answer(response(status)) is (status not in LISTED)
    assert failures.is_answer(StatusError(status)) is (status not in LISTED)


@pytest.mark.parametrize("outcome", [None, "503", 503, {"status_code": 503}, KeyError(503), ConnectionError()])
def test_what_has_no_status_is_not_listed(outcome: object) -> None:
    assert status_failures().classify(outcome) is None
    assert not (isinstance(outcome, Exception) and status_failures().is_answer(outcome))


def test_the_failures_of_http_have_those_of_the_network() -> None:
    assert HTTP_FAILURES is resilience.httpx.HTTP_FAILURES
    assert HTTP_FAILURES.classify(ConnectionRefusedError()) == Failure(unprocessed=True)
    assert HTTP_FAILURES.classify(StatusError(503)) == Failure(OVERLOAD)
    assert HTTP_FAILURES.classify(KeyError()) is None
    assert not HTTP_FAILURES.is_answer(KeyError())


@pytest.mark.parametrize("status", range(100, 600))
def test_a_status_alone(status: int) -> None:
    assert failure_of(status) == TABLE.get(status)
    assert failure_of(status, listed=frozenset()) is None


def test_hints() -> None:
    for outcome in (response, StatusError):
        hinted = HTTP_FAILURES.classify(outcome(503, {"Retry-After": "7"}))
        refused = HTTP_FAILURES.classify(outcome(429, {"x-should-retry": "false", "retry-after-ms": "5"}))
        invited = HTTP_FAILURES.classify(outcome(409, {"x-should-retry": "true", "Retry-After": "2"}))

        assert hinted == Failure(OVERLOAD, 7.0)
        assert refused == Failure(OVERLOAD, 0.005, unprocessed=True, retryable=False, counted=False)
        assert invited == Failure(TRANSIENT, 2.0, counted=False)
        assert HTTP_FAILURES.classify(outcome(501, {"x-should-retry": "true"})) == Failure(TRANSIENT)
        assert HTTP_FAILURES.classify(outcome(400, {"x-should-retry": "true"})) == Failure(TRANSIENT, counted=False)
        assert HTTP_FAILURES.classify(outcome(302, {"x-should-retry": "true"})) is None
        assert HTTP_FAILURES.classify(outcome(404, {"Retry-After": "2"})) is None
        assert HTTP_FAILURES.classify(outcome(404, {"x-should-retry": "false"})) is None


def test_statuses_of_ones_own_replace_the_table() -> None:
    only = status_failures([418, 503])

    assert only.classify(response(418)) == only.classify(StatusError(418)) == Failure(TRANSIENT)
    assert only.classify(response(503)) == Failure(OVERLOAD)
    assert only.classify(response(500)) is None
    assert only.is_answer(StatusError(500))


@pytest.mark.parametrize("status", [399, 600, "503", True, 503.0, None])
def test_a_status_out_of_range(status: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="a status"):
        status_failures([status])


def test_statuses_are_several() -> None:
    wrong: Any = 503
    with pytest.raises(TypeError, match=r"statuses must be several status codes, such as \[502, 503\], not 503"):
        status_failures(wrong)


@pytest.mark.parametrize("code", ["Throttling", "SlowDown", "TooManyRequestsException"])
@pytest.mark.parametrize("status", [None, 400, 429, 503])
def test_throttling_of_aws_is_about_this_caller(code: str, status: int | None) -> None:
    metadata: dict[str, Any] = {"HTTPHeaders": {"Retry-After": "3"}}
    if status is not None:
        metadata["HTTPStatusCode"] = status
    error = client_error({"Error": {"Code": code}, "ResponseMetadata": metadata})

    assert HTTP_FAILURES.classify(error) == Failure(OVERLOAD, None if status is None else 3.0, counted=False)


def test_other_errors_of_aws() -> None:
    missing = client_error({"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}})
    broken = client_error({"Error": {"Code": "InternalError"}, "ResponseMetadata": {"HTTPStatusCode": 500}})
    unknown = client_error({})

    assert HTTP_FAILURES.is_answer(missing)
    assert HTTP_FAILURES.classify(broken) == Failure(TRANSIENT)
    assert HTTP_FAILURES.classify(unknown) is None
    assert not HTTP_FAILURES.is_answer(unknown)


def client_error(body: dict[str, Any]) -> Exception:
    error: Exception = importlib.import_module("botocore.exceptions").ClientError(body, "Operation")
    return error


def test_grpc_is_not_judged_by_a_status() -> None:
    import grpc
    import grpc.aio

    metadata = grpc.aio.Metadata()
    missing = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, metadata, metadata)

    assert status_failures().classify(missing) is None
    assert not status_failures().is_answer(missing)


def test_a_returned_503_comes_out_when_no_attempt_is_left() -> None:
    answers = iter([503, 429, 503])
    pipeline = Pipeline(Retry(3, wait=backoff.none()), failures=status_failures())

    assert pipeline.call(lambda: response(next(answers))).status_code == 503
    assert list(answers) == []


def test_a_raised_404_is_an_answer() -> None:
    calls: list[int] = []

    def fetch() -> None:
        calls.append(1)
        raise StatusError(404)

    with pytest.raises(StatusError):
        Pipeline(Retry(3, wait=backoff.none()), failures=HTTP_FAILURES).call(fetch)
    assert len(calls) == 1


def test_the_hint_of_an_exception_is_waited_for() -> None:
    answers: list[Any] = [StatusError(503, {"Retry-After": "7"}), "fine"]

    def fetch() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    with virtual_time() as clock:
        assert Pipeline(Retry(3, wait=backoff.none()), failures=HTTP_FAILURES).call(fetch) == "fine"
    assert 7 <= clock.elapsed <= 7 * 1.2


def test_what_is_not_safe_to_repeat_is_repeated_after_a_429_and_not_after_a_503() -> None:
    for status, attempts in ((429, 2), (503, 1)):
        answers = iter([status, 200])
        pipeline = Pipeline(Retry(3, wait=backoff.none()), failures=HTTP_FAILURES)
        made: list[int] = []

        def order(answers: Any = answers, made: list[int] = made) -> Any:
            made.append(1)
            return response(next(answers))

        pipeline.bind(idempotent=False).call(order)
        assert len(made) == attempts
