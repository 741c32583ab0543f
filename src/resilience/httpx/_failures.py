"""What is a failure in HTTP: statuses, the exceptions of httpx and httpx2, and what the server says about waiting."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from resilience._outcome.allowlist import Allowlist, Failure, FailureKind
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._util import validation
from resilience.httpx._modules import is_a, module_name_of

STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_OVERLOAD = frozenset({429, 503})
_ABOUT_THE_CALLER = frozenset({408, 425, 429})
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def http_failures(statuses: Iterable[int] = STATUSES) -> Allowlist:
    """Return an allowlist for HTTP.

    Args:
        statuses: the status codes that are failures, from 400 to 599.

    Raises:
        TypeError, ValueError: a status is no integer, or out of range.

    Listed are responses of these statuses, `HTTPStatusError`s about such responses, and everything in
    `NETWORK_ERRORS`, which has the connect, read, write, pool and protocol errors of httpx and httpx2. 429 and 503 are
    of kind OVERLOAD. 408, 425 and 429 are about this caller and an exhausted pool is our own, so no breaker counts
    them. An error before there was a connection is unprocessed: a call may be repeated even if it is not idempotent.
    In a client, that is believed only of httpx's own transports.
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
            counted=status not in _ABOUT_THE_CALLER,
        )

    def of_error(error: Exception) -> Failure | None:
        return of_response(getattr(error, "response", None)) if is_a(error, "HTTPStatusError") else None

    return NETWORK_ERRORS | Allowlist(when=of_error) | Allowlist.of_results(of_response)


def unsent(error: BaseException, own: bool) -> bool | None:
    """Return whether an error proves that nothing was sent; None where it does not claim so either.

    `NETWORK_ERRORS` goes by types, and that is not enough here: other transports give the names of httpx to errors
    that mean something else, an application behind an ASGITransport raises errors of its own clients, and so does what
    a request body is read from. So only httpx's own transports are believed, and not with an error that has a
    request already, for that one came out of another client.

    Args:
        error: what a transport raised.
        own: whether the transport is httpx's own.
    """
    claim = NETWORK_ERRORS.classify(error)
    if claim is None or not claim.unprocessed:
        return None
    return own and module_name_of(error) is not None and vars(error).get("_request") is None


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110 10.2.3); None where it is no number.

    The RFC knows digits only; decimals are met, too. Of a list, as two headers make one, the greatest counts. A
    negative number, NaN or anything else is ignored.
    """
    if value is None:
        return None
    parts = [part.strip(" \t") for part in value.split(",")]
    if not all(_SECONDS.fullmatch(part) for part in parts):
        return None
    return max(float(part) for part in parts)


HTTP_FAILURES: Final = http_failures()
"""The failures of HTTP; see `http_failures`. They count in a transport whose pipeline has no failures of its own."""
