"""The failures of HTTP: status codes, the exceptions of httpx and httpx2, and the Retry-After header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from resilience._outcome.allowlist import Allowlist, Failure, FailureKind
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._util import validation
from resilience.httpx._modules import is_a, module_name_of

STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""The status codes that are failures by default."""
_OVERLOAD = frozenset({429, 503})
_NOT_COUNTED = frozenset({408, 425, 429})
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def http_failures(statuses: Iterable[int] = STATUSES) -> Allowlist:
    """Return an allowlist for HTTP, for `failures=` of a pipeline.

    It lists responses with these status codes, `HTTPStatusError`s with such a response, and everything in
    `NETWORK_ERRORS`, such as the connect, read, write, pool and protocol errors of httpx and httpx2.

    429 and 503 are of the kind OVERLOAD, other status codes TRANSIENT. Circuit breakers do not count 408, 425 and 429,
    which are about this caller, nor a PoolTimeout, whose cause is the pool of this client. An error that precedes the
    connection is unprocessed: the call may be repeated even if it is not idempotent. In a client, only the transports
    of httpx and httpx2 themselves guarantee that. A Retry-After header with a number of seconds is the delay before
    the retry.

    Args:
        statuses: the status codes that are failures, each from 400 to 599.

    Raises:
        TypeError: `statuses` is not iterable, or has an element that is not an integer.
        ValueError: a status code is out of range.
    """
    given: Any = statuses
    if not isinstance(given, Iterable):
        raise TypeError(f"statuses must be several status codes, such as [502, 503], not {given!r}")
    listed = frozenset(validation.integer("a status", status, low=400, high=599) for status in statuses)

    def of_response(result: Any) -> Failure | None:
        status = getattr(result, "status_code", None)
        if not isinstance(status, int) or status not in listed or not is_a(result, "Response"):
            return None
        return Failure(
            FailureKind.OVERLOAD if status in _OVERLOAD else FailureKind.TRANSIENT,
            retry_after(result.headers.get("retry-after")),
            counted=status not in _NOT_COUNTED,
        )

    def of_error(error: Exception) -> Failure | None:
        return of_response(getattr(error, "response", None)) if is_a(error, "HTTPStatusError") else None

    return NETWORK_ERRORS | Allowlist(when=of_error) | Allowlist.of_results(of_response)


def unsent(error: BaseException, own: bool) -> bool | None:
    """Return whether an error proves that nothing was sent; None for an error whose type does not say so.

    `NETWORK_ERRORS` examines types only, which is not enough here. Other transports use the errors of httpx with other
    meanings, and an application behind an ASGITransport and the stream of a request body may raise errors of their own
    clients. So only the transports of httpx itself guarantee it, and only with an error that has no request yet: one
    that has a request was raised through another client.

    Args:
        error: the exception that a transport has raised.
        own: whether the transport is one of httpx or httpx2 itself; see `is_own`.
    """
    failure = NETWORK_ERRORS.classify(error)
    if failure is None or not failure.unprocessed:
        return None
    return own and module_name_of(error) is not None and vars(error).get("_request") is None


def retry_after(value: str | None) -> float | None:
    """Return the seconds in a Retry-After header (RFC 9110 10.2.3); None where it is missing or not a number.

    The RFC permits digits only; decimals are accepted, too. Of a list, which repeated headers are joined to, the
    greatest number counts. A negative number, NaN, a date and anything else are ignored.
    """
    if value is None:
        return None
    parts = [part.strip(" \t") for part in value.split(",")]
    if not all(_SECONDS.fullmatch(part) for part in parts):
        return None
    return max(float(part) for part in parts)


HTTP_FAILURES: Final = http_failures()
"""The failures of HTTP with the status codes 408, 425, 429, 500, 502, 503 and 504; see `http_failures`.

They are the default `failures` of a client or transport whose pipeline has none.
"""
