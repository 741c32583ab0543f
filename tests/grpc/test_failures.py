"""Which status codes are failures, what details and a pushback change, and codes that the caller lists."""

from typing import Any

import grpc
import pytest

from resilience import NETWORK_ERRORS, CircuitOpenError, Failure, FailureKind
from resilience._outcome.ending import Ending, EndingKind
from resilience.grpc import RPC_FAILURES, rpc_failures
from resilience.grpc._errors import ResilienceRpcError, make_rpc_error
from resilience.grpc._failures import NEVER_SENT
from tests.grpc.helpers import Code, failed


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (Code.UNAVAILABLE, Failure()),
        (Code.ABORTED, Failure(counted=False)),
        (Code.INTERNAL, Failure(retryable=False)),
        (Code.UNKNOWN, Failure(retryable=False)),
        (Code.DATA_LOSS, Failure(retryable=False)),
        (Code.DEADLINE_EXCEEDED, Failure(FailureKind.TIMEOUT, retryable=False)),
        (Code.RESOURCE_EXHAUSTED, Failure(FailureKind.OVERLOAD, retryable=False, counted=False)),
    ],
)
def test_each_failure_has_its_kind(code: Code, failure: Failure) -> None:
    assert RPC_FAILURES.classify(failed(code)) == failure
    assert Ending(None, failed(code), RPC_FAILURES).kind is EndingKind.FAILED


@pytest.mark.parametrize(
    "code",
    [
        *[Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS, Code.PERMISSION_DENIED],
        *[Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE, Code.UNIMPLEMENTED, Code.UNAUTHENTICATED],
    ],
)
def test_all_other_codes_are_answers(code: Code) -> None:
    assert RPC_FAILURES.classify(failed(code, pushback="10")) is None
    assert Ending(None, failed(code), RPC_FAILURES).kind is EndingKind.OK
    assert (NETWORK_ERRORS | RPC_FAILURES).is_answer(failed(code))


@pytest.mark.parametrize(
    "details", ["Channel closed!", "Locally cancelled by application!", "Cancelled upon garbage collection!"]
)
def test_a_call_that_the_caller_has_cancelled_is_neither_good_nor_bad(details: str) -> None:
    error = failed(Code.CANCELLED, details, pushback="10")

    assert Ending(None, error, RPC_FAILURES).kind is EndingKind.ERROR
    assert not RPC_FAILURES.is_answer(error)


def test_a_call_that_the_server_has_cancelled_is_a_failure_like_an_unavailable_one() -> None:
    assert RPC_FAILURES.classify(failed(Code.CANCELLED, "on purpose")) == Failure()
    without = rpc_failures([Code.UNAVAILABLE])
    assert without.classify(failed(Code.CANCELLED)) is None
    assert not without.is_answer(failed(Code.CANCELLED))


def test_a_cancelled_call_can_be_listed_but_not_one_whose_channel_was_closed() -> None:
    mine = rpc_failures([Code.CANCELLED])

    assert mine.classify(failed(Code.CANCELLED, "on purpose")) == Failure()
    assert mine.classify(failed(Code.CANCELLED, "Channel closed!")) is None


@pytest.mark.parametrize(
    "details",
    [
        "Received RST_STREAM with error code 2",
        "stream terminated by RST_STREAM with error code: INTERNAL_ERROR",
        "Received unexpected EOS on DATA frame from server",
    ],
)
def test_a_stream_reset_may_be_retried(details: str) -> None:
    assert RPC_FAILURES.classify(failed(Code.INTERNAL, details)) == Failure()


def test_a_status_that_grpc_aio_has_lost_is_retried_and_not_counted() -> None:
    assert RPC_FAILURES.classify(failed(Code.INTERNAL, "Internal error from Core")) == Failure(counted=False)


@pytest.mark.parametrize(
    "details", ["Exception serializing request!", "Exception deserializing response!", "Invalid metadata"]
)
def test_what_is_the_callers_own_mistake_is_nobodys_failure(details: str) -> None:
    error = failed(Code.INTERNAL, details)

    assert RPC_FAILURES.classify(error) is None
    assert Ending(None, error, RPC_FAILURES).kind is EndingKind.ERROR


@pytest.mark.parametrize(
    "details", ["Getting metadata from plugin failed with error: no route to the issuer", "Illegal metadata"]
)
def test_missing_credentials_may_be_retried_and_are_not_counted(details: str) -> None:
    assert RPC_FAILURES.classify(failed(Code.UNAVAILABLE, details)) == Failure(counted=False)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.UNKNOWN, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED])
@pytest.mark.parametrize(("given", "seconds"), [("0", 0.0), ("25", 0.025), ("2147483647", 2147483.647)])
def test_a_pushback_permits_a_retry_of_any_failure(code: Code, given: str, seconds: float) -> None:
    failure = RPC_FAILURES.classify(failed(code, pushback=given))

    assert failure is not None
    assert failure.retryable
    assert failure.unprocessed
    assert failure.retry_after == seconds


@pytest.mark.parametrize("given", ["-1", "", "abc", "1e3", "1.5", "010", "+5", " 5", "2147483648", "99999999999", "٣"])
def test_any_other_pushback_forbids_it(given: str) -> None:
    assert RPC_FAILURES.classify(failed(Code.UNAVAILABLE, pushback=given)) == Failure(retryable=False)


def test_of_several_pushbacks_the_longest_counts_and_garbage_forbids() -> None:
    def twice(*values: str) -> Failure | None:
        trailing = grpc.aio.Metadata(*(("grpc-retry-pushback-ms", value) for value in values))
        return RPC_FAILURES.classify(grpc.aio.AioRpcError(Code.UNAVAILABLE, grpc.aio.Metadata(), trailing, ""))

    assert twice("10", "30", "20") == Failure(retry_after=0.03, unprocessed=True, exact=True)
    assert twice("10", "x") == Failure(retryable=False)


def test_a_request_that_was_never_sent_is_unprocessed() -> None:
    error = failed(Code.UNAVAILABLE)
    error.__dict__[NEVER_SENT] = True

    assert RPC_FAILURES.classify(error) == Failure(unprocessed=True)


def test_errors_without_a_status_are_not_listed() -> None:
    odd: Any = grpc.RpcError()
    odd.code = lambda: "UNAVAILABLE"

    assert RPC_FAILURES.classify(grpc.RpcError()) is None
    assert RPC_FAILURES.classify(odd) is None
    assert RPC_FAILURES.classify(ValueError()) is None


def test_other_codes_can_be_listed() -> None:
    mine = rpc_failures([Code.UNAVAILABLE, Code.NOT_FOUND])

    assert mine.classify(failed(Code.NOT_FOUND)) == Failure()
    assert mine.classify(failed(Code.UNAVAILABLE)) == Failure()
    assert mine.classify(failed(Code.ABORTED)) is None
    assert mine.is_answer(failed(Code.ABORTED))


def test_only_codes_of_failures_can_be_listed() -> None:
    unchecked: Any = rpc_failures

    with pytest.raises(ValueError, match="OK"):
        rpc_failures([Code.OK])
    with pytest.raises(TypeError, match=r"grpc\.StatusCode"):
        unchecked(["UNAVAILABLE"])


def test_a_rejection_of_another_channel_is_no_failure() -> None:
    error: Any = CircuitOpenError()
    make_rpc_error(error, ResilienceRpcError)

    assert RPC_FAILURES.classify(error) is None
    assert Ending(None, error, RPC_FAILURES).kind is EndingKind.ABANDONED
