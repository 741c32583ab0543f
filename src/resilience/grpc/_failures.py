"""Which errors of RPCs are failures, and what a server says about retries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from grpc import RpcError, StatusCode
from grpc.aio import BaseError, UsageError

from resilience._outcome.allowlist import ANSWER, Allowlist, Failure, FailureKind, Verdict
from resilience.grpc._status_details import DETAILS_KEY, retry_delay

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
ITERATOR_FAILED: Final = "Exception iterating requests!"
"""The details of an UNKNOWN that grpcio raises if the request iterator of the caller raises an exception."""
NEVER_SENT: Final = "_resilience_never_sent"
"""The attribute of an error whose request was certainly never sent; set by `Guard.examine`."""

DEFAULT_CODES: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.INTERNAL,
        StatusCode.UNKNOWN,
        StatusCode.DATA_LOSS,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
        StatusCode.CANCELLED,
    }
)
_KINDS: Final = {
    StatusCode.DEADLINE_EXCEEDED: FailureKind.TIMEOUT,
    StatusCode.RESOURCE_EXHAUSTED: FailureKind.OVERLOAD,
}
_NOT_COUNTED: Final = frozenset({StatusCode.RESOURCE_EXHAUSTED, StatusCode.ABORTED})
_NOT_RETRIED: Final = frozenset(
    {StatusCode.DEADLINE_EXCEEDED, StatusCode.UNKNOWN, StatusCode.DATA_LOSS, StatusCode.RESOURCE_EXHAUSTED}
)
_RESETS: Final = ("rst_stream", "rst stream", "unexpected eos on data frame")
"""The details of an INTERNAL that is a stream reset; the same texts as in google-cloud-spanner and -bigtable."""
_LOCAL_FAULTS: Final = frozenset(
    {
        (StatusCode.INTERNAL, "Exception serializing request!"),
        (StatusCode.INTERNAL, "Exception deserializing response!"),
        (StatusCode.INTERNAL, "Invalid metadata"),
        (StatusCode.UNKNOWN, ITERATOR_FAILED),
    }
)
"""The codes and details with which grpcio raises a mistake of the caller: requests or metadata cannot be sent."""
_STATUS_LOST: Final = "Internal error from Core"
"""The details of an INTERNAL that `grpc.aio` raises in place of the status of the server, which has ended the RPC while
a request was written. It does so now and then, and the status cannot be known any more."""
_NO_CREDENTIALS: Final = ("Getting metadata from plugin failed", "Illegal metadata")
"""The details of an UNAVAILABLE that gRPC raises where it cannot get the credentials of the caller; it may pass."""
CLOSED: Final = "Channel closed!"
"""The details of a CANCELLED that grpcio raises when the caller closes the channel."""
STREAM_CLOSED: Final = f"Stream removed ({CLOSED})"
"""The same, for a stream whose next message is awaited."""
CANCELLED: Final = "Locally cancelled by application!"
"""The details of a CANCELLED that grpcio raises when the caller cancels the RPC."""
COLLECTED: Final = "Cancelled upon garbage collection!"
"""The details of a CANCELLED that grpcio raises when the caller drops the RPC."""
LOCAL_ENDS: Final = frozenset({CLOSED, STREAM_CLOSED, CANCELLED, COLLECTED})
"""The details of each CANCELLED that the caller has caused."""
_NOT_INVOKED: Final = "Cannot invoke RPC"
_NOT_SENT: Final = (_NOT_INVOKED, "metadata was invalid")
"""How the messages of ValueErrors of grpcio's synchronous API begin; `grpc.aio` has its own exceptions for these."""
_DELAY: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_LONGEST_DELAY: Final = 2**31 - 1


def rpc_failures(codes: Iterable[StatusCode] = DEFAULT_CODES) -> Allowlist:
    """Return an allowlist of status codes, for `failures=` of a pipeline.

    Args:
        codes: the status codes that are failures. The codes of `RPC_FAILURES` are treated as described there; any other
            code is counted by circuit breakers, and retried if the call is idempotent. A code that is not given is an
            answer of a healthy server, except for CANCELLED, which is then neither a success nor a failure. A CANCELLED
            that the caller has caused is never a failure.

    Raises:
        TypeError: an element of `codes` is not a `grpc.StatusCode`.
        ValueError: `codes` has OK.
    """
    listed = frozenset(codes)
    given: frozenset[Any] = listed
    for code in given:
        if not isinstance(code, StatusCode):
            raise TypeError(f"codes must be members of grpc.StatusCode, not {code!r}")
        if code is StatusCode.OK:
            raise ValueError("codes must not have OK, which is not a failure")

    def rpc_failure(error: Exception) -> Verdict:
        code = code_of(error)
        if code is None:
            return None
        details = details_of(error)
        if code is StatusCode.CANCELLED and (code not in listed or details in LOCAL_ENDS):
            return None
        if code not in listed:
            return ANSWER
        if (code, details) in _LOCAL_FAULTS:
            return None
        local = code is StatusCode.UNAVAILABLE and details.startswith(_NO_CREDENTIALS)
        is_lost = code is StatusCode.INTERNAL and details == _STATUS_LOST
        counted = code not in _NOT_COUNTED and not local and not is_lost
        kind = _KINDS.get(code, FailureKind.TRANSIENT)
        trailers = trailers_of(error)
        allowed, delay = pushback(trailers)
        if not allowed:
            return Failure(kind, retryable=False, counted=counted)
        if delay is not None:
            # The server asks for the retry, so that it is safe for any method (gRFC A6, "Pushback").
            return Failure(kind, delay, unprocessed=True, counted=counted, exact=True)
        delay = retry_info(trailers)
        retryable = code not in _NOT_RETRIED or delay is not None
        if code is StatusCode.INTERNAL and delay is None:
            retryable = is_lost or any(text in details.lower() for text in _RESETS)
        return Failure(kind, delay, unprocessed=never_sent(error), retryable=retryable, counted=counted)

    return Allowlist(RpcError, when=rpc_failure)


def is_caller_fault(error: Exception) -> bool:
    """Return whether the caller has caused an error, so that the advice to list it as a failure would be wrong.

    That is the case if the call was cancelled, the channel was closed, or the request or metadata cannot be sent.
    """
    code = code_of(error)
    if code is not None:
        details = details_of(error)
        return (code, details) in _LOCAL_FAULTS or (code is StatusCode.CANCELLED and details in LOCAL_ENDS)
    return isinstance(error, BaseError) or (isinstance(error, ValueError) and str(error).startswith(_NOT_SENT))


def is_closed(error: Exception) -> bool:
    """Return whether an error says that an attempt was not made because its channel is closed."""
    if isinstance(error, UsageError):
        return "closed" in str(error).lower()
    return isinstance(error, ValueError) and str(error).startswith(_NOT_INVOKED)


def code_of(error: Any) -> StatusCode | None:
    """Return the status code of an error; None where it has none, as an `RpcError` that an interceptor has made."""
    method = getattr(error, "code", None)
    code = method() if callable(method) else None
    return code if isinstance(code, StatusCode) else None


def details_of(error: Any) -> str:
    """Return the details of an error, empty if it has none. They are examined, and never put into a message."""
    method = getattr(error, "details", None)
    details = method() if callable(method) else None
    return details if isinstance(details, str) else ""


def trailers_of(error: Any) -> Any:
    """Return the trailing metadata of an error, pairs of key and value."""
    method = getattr(error, "trailing_metadata", None)
    trailers: Any = method() if callable(method) else None
    return trailers or ()


def retry_info(trailers: Any) -> float | None:
    """Return the delay of a `google.rpc.RetryInfo` in trailing metadata, in seconds, > 0; None if there is none."""
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return retry_delay(value)
    return None


def pushback(trailers: Any) -> tuple[bool, float | None]:
    """Return whether the server permits a retry, and the seconds to wait before it; None where it gives no delay.

    gRFC A6: `grpc-retry-pushback-ms` in the trailing metadata is a 32-bit integer in decimal. A value that is negative
    or cannot be parsed forbids a retry. Of several values, the longest counts.
    """
    values = [value for key, value in trailers if key == PUSHBACK_KEY]
    if not values:
        return True, None
    if not all(isinstance(value, str) and _DELAY.fullmatch(value) for value in values):
        return False, None
    longest = max(int(value) for value in values)
    return (True, longest / 1000) if longest <= _LONGEST_DELAY else (False, None)


def never_sent(error: Exception) -> bool:
    """Return whether an error is marked as one whose request was certainly never sent."""
    return NEVER_SENT in error.__dict__


RPC_FAILURES: Final = rpc_failures()
"""The failures of RPCs, by status code: the default `failures` of a channel whose pipeline has none.

All other codes are answers of a healthy server. A CANCELLED that the caller has caused, by cancelling the call or
closing the channel, is neither a success nor a failure, since it does not indicate the health of the server.

| code | kind | counted | retried if idempotent |
|---|---|---|---|
| UNAVAILABLE | TRANSIENT | yes | yes |
| DEADLINE_EXCEEDED sent by the server | TIMEOUT | yes | no |
| INTERNAL | TRANSIENT | yes | after a stream reset, as its details say |
| UNKNOWN, DATA_LOSS | TRANSIENT | yes | no |
| RESOURCE_EXHAUSTED | OVERLOAD | no | no |
| ABORTED | TRANSIENT | no | yes |
| CANCELLED by the server, such as one that shuts down | TRANSIENT | yes | yes |

"Counted" means that circuit breakers count the failure.

`grpc-retry-pushback-ms` in the trailing metadata (gRFC A6) takes precedence over the last column: a delay permits a
retry after any of these codes, idempotent or not, when exactly that delay is over; any other value forbids it. A
`google.rpc.RetryInfo` in the status details permits the retry of an idempotent call after any of these codes, and its
delay is the shortest wait.

Mistakes of the caller to which gRPC gives one of these codes are not failures of the server: a serializer that raises
and metadata that cannot be sent are no failures, and an UNAVAILABLE because credentials cannot be obtained is not
counted. If a server ends an RPC while the client writes a request, `grpc.aio` may raise an INTERNAL ("Internal error
from Core") in place of the status. Such a failure is retried if the call is idempotent, and not counted.
"""
