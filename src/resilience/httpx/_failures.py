"""The failures of HTTP for clients and transports of httpx and httpx2."""

from __future__ import annotations

from collections.abc import Iterable
from ssl import SSLError
from typing import Any, Final

from resilience._outcome.allowlist import Allowlist
from resilience._outcome.http_status import STATUSES
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._outcome.status_failures import HTTP_FAILURES, status_failures
from resilience.httpx._modules import httpx_module_of, module_name_of
from resilience.httpx._privates import request_of

__all__ = ["HTTP_FAILURES", "http_failures", "read_error", "unsent"]

REFUSED_STREAM: Final = 7
"""The error code of a stream that the server has not processed (RFC 9113 7)."""


def http_failures(statuses: Iterable[int] = STATUSES) -> Allowlist:
    """Return an allowlist for HTTP, for `failures=` of a pipeline.

    It lists everything in `NETWORK_ERRORS`, such as the connect, read, write, pool and protocol errors of httpx and
    httpx2, and what `resilience.status_failures(statuses)` lists: responses with these status codes, and
    `HTTPStatusError`s with such a response. See there for the kind of each status code and the hints of a server.

    Circuit breakers do not count a PoolTimeout, whose cause is the pool of this client. An error that precedes the
    connection is unprocessed: the call may be repeated even if it is not idempotent. In a client, only the transports
    of httpx and httpx2 themselves guarantee that.

    Args:
        statuses: the status codes that are failures, each from 400 to 599.

    Raises:
        TypeError: `statuses` is not iterable, or has an element that is not an integer.
        ValueError: a status code is out of range.
    """
    return NETWORK_ERRORS | status_failures(statuses)


def read_error(error: BaseException, request: Any) -> Exception | None:
    """Return the error of httpx for an SSLError that httpcore on asyncio does not translate; None for others.

    That is so for a record that cannot be decrypted, and for an alert after the handshake (encode/httpcore).
    """
    if not isinstance(error, SSLError):
        return None
    translated: Exception = httpx_module_of(request).module.ReadError(str(error), request=request)
    return translated


def unsent(error: BaseException, own: bool, request: Any = None, *, has_sent: bool = False) -> bool | None:
    """Return whether an error proves that nothing was sent; None for an error whose type does not say so.

    `NETWORK_ERRORS` examines types only, which is not enough here. Other transports use the errors of httpx with other
    meanings, and an application behind an ASGITransport and the stream of a request body may raise errors of their own
    clients. So only the transports of httpx itself guarantee it, and only with an error that has no request yet, or
    the one that was sent, as pytest-httpx sets it: one with another request was raised through another client.

    Args:
        error: the exception that a transport has raised.
        own: whether the transport is one of httpx or httpx2 itself; see `is_own`.
        request: the request that was sent.
        has_sent: whether something was sent for it. Then the error is of something else, such as of what the body of
            the request has called.
    """
    if own and _is_refused_stream(error):
        return True
    failure = NETWORK_ERRORS.classify(error)
    if failure is None or not failure.unprocessed:
        return None
    of = request_of(error)
    return own and not has_sent and module_name_of(error) is not None and (of is None or of is request)


def _is_refused_stream(error: BaseException) -> bool:
    """Return whether the server has refused the stream before it did anything (RFC 9113 8.7).

    It says so by REFUSED_STREAM, or by a GOAWAY with a lower stream. httpcore repeats what such a GOAWAY leaves out by
    itself, unless it has stream 0: then it raises an error. It raises events of the package h2 as arguments of its own
    errors, which are the causes of those of httpx.
    """
    arguments: tuple[object, ...] = getattr(error.__cause__, "args", ())
    event: Any = arguments[0] if arguments else None
    if type(event).__name__ == "ConnectionTerminated":
        return getattr(event, "last_stream_id", None) == 0
    return type(event).__name__ == "StreamReset" and getattr(event, "error_code", None) == REFUSED_STREAM
