"""What counts as a failure of a gRPC server, and what a server may say about trying again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from grpc import RpcError, StatusCode
from grpc.aio import BaseError, UsageError

from resilience._outcome.allowlist import ANSWER, Allowlist, Failure, FailureKind, Verdict

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
NEVER_SENT: Final = "_resilience_never_sent"
"""The attribute of an error whose request surely never left this process; see `Guard.examine`."""

DEFAULT_CODES: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.INTERNAL,
        StatusCode.UNKNOWN,
        StatusCode.DATA_LOSS,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
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
"""The details of an INTERNAL that is a stream reset (the same words as in google-cloud-spanner and -bigtable)."""
_LOCAL_FAULTS: Final = frozenset(
    {"Exception serializing request!", "Exception deserializing response!", "Invalid metadata"}
)
"""The details of an INTERNAL that grpcio itself makes of a mistake of the caller's: what they gave cannot be sent."""
_NO_CREDENTIALS: Final = ("Getting metadata from plugin failed", "Illegal metadata")
"""The details of an UNAVAILABLE that gRPC makes when the caller's credentials cannot be had: that may pass."""
_CLOSED: Final = "Channel closed!"
"""The details of a CANCELLED that grpcio makes when the caller closes the channel."""
_NOT_INVOKED: Final = "Cannot invoke RPC"
_NOT_SENT: Final = (_NOT_INVOKED, "metadata was invalid")
"""What the ValueErrors of grpcio's synchronous API say; `grpc.aio` has exceptions of its own for these."""
_DELAY: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_LONGEST_DELAY: Final = 2**31 - 1


def rpc_failures(codes: Iterable[StatusCode] = DEFAULT_CODES) -> Allowlist:
    """Make an allowlist of status codes.

    Args:
        codes: the codes that are failures. Those of `RPC_FAILURES` are treated as there; any other is retried when
            the call is idempotent, and counted. A code that is not given is an answer of a healthy server, but for
            CANCELLED: not given, it is neither good nor bad.

    Raises:
        TypeError: something in `codes` is no `grpc.StatusCode`.
        ValueError: it is OK.
    """
    listed = frozenset(codes)
    given: frozenset[Any] = listed
    for code in given:
        if not isinstance(code, StatusCode):
            raise TypeError(f"codes must be members of grpc.StatusCode, not {code!r}")
        if code is StatusCode.OK:
            raise ValueError("codes must be those of failures, which OK is not")

    def rpc_failure(error: Exception) -> Verdict:
        code = code_of(error)
        if code is None:
            return None
        details = details_of(error)
        if code is StatusCode.CANCELLED and (code not in listed or details == _CLOSED):
            return None
        if code not in listed:
            return ANSWER
        if code is StatusCode.INTERNAL and details in _LOCAL_FAULTS:
            return None
        local = code is StatusCode.UNAVAILABLE and details.startswith(_NO_CREDENTIALS)
        counted = code not in _NOT_COUNTED and not local
        kind = _KINDS.get(code, FailureKind.TRANSIENT)
        allowed, delay = pushback(error)
        if not allowed:
            return Failure(kind, retryable=False, counted=counted)
        if delay is not None:
            # The server answers for the repetition, so that it is safe whatever the method does (gRFC A6, "Pushback").
            return Failure(kind, delay, unprocessed=True, counted=counted)
        retryable = code not in _NOT_RETRIED
        if code is StatusCode.INTERNAL:
            retryable = any(words in details.lower() for words in _RESETS)
        return Failure(kind, unprocessed=never_sent(error), retryable=retryable, counted=counted)

    return Allowlist(RpcError, when=rpc_failure)


def is_caller_fault(error: Exception) -> bool:
    """Return whether the caller's side has brought an error about, so that nobody is to be advised to list it.

    That is a call that was cancelled, a channel that was closed, and what cannot be sent.
    """
    code = code_of(error)
    if code is not None:
        faulty = code is StatusCode.INTERNAL and details_of(error) in _LOCAL_FAULTS
        return faulty or code is StatusCode.CANCELLED
    return isinstance(error, BaseError) or (isinstance(error, ValueError) and str(error).startswith(_NOT_SENT))


def is_closed(error: Exception) -> bool:
    """Return whether an attempt was not made because its channel is closed."""
    if isinstance(error, UsageError):
        return "closed" in str(error).lower()
    return isinstance(error, ValueError) and str(error).startswith(_NOT_INVOKED)


def code_of(error: Any) -> StatusCode | None:
    """Return the status of an error; None where it has none, as an `RpcError` of somebody's own making."""
    ask = getattr(error, "code", None)
    code = ask() if callable(ask) else None
    return code if isinstance(code, StatusCode) else None


def details_of(error: Any) -> str:
    """Return the details of an error, empty if it has none. They are looked at, and never repeated in any message."""
    ask = getattr(error, "details", None)
    details = ask() if callable(ask) else None
    return details if isinstance(details, str) else ""


def pushback(error: Any) -> tuple[bool, float | None]:
    """Return what the server says about a retry: whether it may be made, and after how many seconds, if it says so.

    gRFC A6: `grpc-retry-pushback-ms` in the trailing metadata is a 32-bit integer in decimal; one that is negative,
    or cannot be read, means not to retry. Of several, the longest counts.
    """
    ask = getattr(error, "trailing_metadata", None)
    trailing: Any = ask() if callable(ask) else None
    given = [value for key, value in trailing or () if key == PUSHBACK_KEY]
    if not given:
        return True, None
    if not all(isinstance(value, str) and _DELAY.fullmatch(value) for value in given):
        return False, None
    longest = max(int(value) for value in given)
    return (True, longest / 1000) if longest <= _LONGEST_DELAY else (False, None)


def never_sent(error: Exception) -> bool:
    """Return whether the request surely never left this process."""
    return NEVER_SENT in error.__dict__


RPC_FAILURES: Final = rpc_failures()
"""What is a failure of a gRPC server. All other codes are answers, but for CANCELLED, which is neither good nor bad:
somebody gave up on the call, or closed the channel, and that says nothing about the server's health.

| code | kind | counted | retried, when idempotent |
|---|---|---|---|
| UNAVAILABLE | TRANSIENT | yes | yes |
| DEADLINE_EXCEEDED that the server sent | TIMEOUT | yes | no |
| INTERNAL | TRANSIENT | yes | after a stream reset, told by the details |
| UNKNOWN, DATA_LOSS | TRANSIENT | yes | no |
| RESOURCE_EXHAUSTED | OVERLOAD | no | no |
| ABORTED | TRANSIENT | no | yes |

`grpc-retry-pushback-ms` in the trailing metadata overrules the last column: a delay permits a retry of any of them,
idempotent or not, once the delay is over; anything else forbids it.

Mistakes of the caller's own that gRPC gives one of these codes are not the server's: a serializer that raises and
metadata that cannot be sent are no failures, and an UNAVAILABLE for want of credentials is not counted.
"""
