"""The RetryInfo in the status details of an error, as the messages of googleapis serialize it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._outcome.allowlist import Failure, FailureKind
from resilience.grpc import RPC_FAILURES
from resilience.grpc._status_details import retry_delay
from tests.grpc.helpers import Code, failed_with

# They have no types.
any_pb2: Any = importlib.import_module("google.protobuf.any_pb2")
duration_pb2: Any = importlib.import_module("google.protobuf.duration_pb2")
error_details_pb2: Any = importlib.import_module("google.rpc.error_details_pb2")
status_pb2: Any = importlib.import_module("google.rpc.status_pb2")


def status(*details: object) -> bytes:
    """Return a serialized Status with these details."""
    packed = []
    for detail in details:
        one = any_pb2.Any()
        one.Pack(detail)
        packed.append(one)
    serialized: bytes = status_pb2.Status(code=8, message="too much", details=packed).SerializeToString()
    return serialized


def retry_info(seconds: int, nanos: int = 0) -> Any:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos))


@pytest.mark.parametrize(("seconds", "nanos", "delay"), [(3, 250_000_000, 3.25), (0, 1_000_000, 0.001), (7, 0, 7.0)])
def test_the_delay_is_read(seconds: int, nanos: int, delay: float) -> None:
    assert retry_delay(status(retry_info(seconds, nanos))) == delay


def test_other_details_are_skipped() -> None:
    other = error_details_pb2.QuotaFailure(violations=[error_details_pb2.QuotaFailure.Violation(subject="x" * 200)])
    assert retry_delay(status(other, retry_info(2), other)) == 2.0
    assert retry_delay(status(other)) is None


@pytest.mark.parametrize("info", [retry_info(0), retry_info(-3), retry_info(0, -1), error_details_pb2.RetryInfo()])
def test_a_delay_that_is_not_positive_is_none(info: Any) -> None:
    assert retry_delay(status(info)) is None


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"\x1a\xff\xff", b"\x1a\x05abc", b"\x0b", b"\x08" + b"\xff" * 12])
def test_garbage_is_none(garbage: bytes) -> None:
    assert retry_delay(garbage) is None


@given(st.binary(max_size=60))
def test_no_bytes_raise(data: bytes) -> None:
    delay = retry_delay(data)
    assert delay is None or delay > 0


@given(st.integers(1, 315_575_999_999), st.integers(0, 999_999_999))
def test_it_reads_what_the_reference_writes(seconds: int, nanos: int) -> None:
    assert retry_delay(status(retry_info(seconds, nanos))) == pytest.approx(seconds + nanos / 1e9)


@pytest.mark.parametrize(
    ("code", "kind", "counted"),
    [
        (Code.RESOURCE_EXHAUSTED, FailureKind.OVERLOAD, False),
        (Code.UNAVAILABLE, FailureKind.TRANSIENT, True),
        (Code.INTERNAL, FailureKind.TRANSIENT, True),
    ],
)
def test_a_failure_with_it_may_be_retried_after_the_delay(code: Code, kind: FailureKind, counted: bool) -> None:
    error = failed_with(code, ("grpc-status-details-bin", status(retry_info(2))))

    assert RPC_FAILURES.classify(error) == Failure(kind, 2.0, counted=counted)


def test_a_pushback_takes_precedence() -> None:
    details = ("grpc-status-details-bin", status(retry_info(2)))
    assert RPC_FAILURES.classify(failed_with(Code.UNAVAILABLE, details, ("grpc-retry-pushback-ms", "10"))) == Failure(
        retry_after=0.01, unprocessed=True, exact=True
    )
    assert RPC_FAILURES.classify(failed_with(Code.UNAVAILABLE, ("grpc-retry-pushback-ms", "-1"), details)) == Failure(
        retryable=False
    )
