"""Allowlists of HTTP status codes, for the responses and exceptions of any client."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from resilience._outcome import http_status
from resilience._outcome.allowlist import ANSWER, Allowlist, Failure, Verdict
from resilience._outcome.failure import TRANSIENT
from resilience._outcome.http_status import STATUSES, TABLE
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._outcome.problem_bodies import body_hints_of
from resilience._outcome.server_hints import NO_HINTS, Hints, hints_of
from resilience._util import validation

_ABOUT_THE_REQUEST: Final = Failure(counted=False)
"""The failure for a 4xx that is an answer by its status, but that the server asks to repeat."""


def status_failures(statuses: Iterable[int] = STATUSES) -> Allowlist:
    """Return an allowlist of HTTP status codes, for `failures=` of a pipeline around functions that use HTTP.

    It classifies returned responses, and exceptions that were made of a response, by their status code, without
    importing a client. The code is an integer from 100 to 599 in `status_code`, `status`, `http_status` or `code`, or
    in one of these of `response`: of requests, urllib3, urllib, aiohttp, httpx and httpx2, and of the exceptions of
    most SDKs over HTTP, those of botocore included. All codes that are not listed are known answers of a healthy
    dependency: a response or exception with 404 is a good outcome.

    | code | kind | counted | unprocessed |
    |---|---|---|---|
    | 408 | TIMEOUT | no | no |
    | 425 | TRANSIENT | no | no |
    | 429 | OVERLOAD | no | yes |
    | 500, 502, 520 | TRANSIENT | yes | no |
    | 503 | OVERLOAD | yes | no |
    | 529 | OVERLOAD | yes | yes |
    | 504, 524 | TIMEOUT | yes | no |
    | 521, 523 | TRANSIENT | yes | yes |
    | 522 | TIMEOUT | yes | yes |
    | any other that is given | TRANSIENT | yes | no |

    "Counted" means that circuit breakers count the failure. Exceptions of botocore with an error code for throttling
    are of the kind OVERLOAD and not counted, whatever their status code.

    The headers of the response are obeyed. The delay before a retry is, in this order, that of `retry-after-ms` or
    `x-ms-retry-after-ms`, of Retry-After (seconds, or a date relative to the Date of the response; RFC 9110 10.2.3),
    or, for 429 and 503 with nothing remaining, of RateLimit, RateLimit-Reset, X-RateLimit-Reset, or the forms of
    OpenAI, Azure and Anthropic. `x-should-retry: false` forbids a retry; `true` makes any code from 400 on a failure,
    which is counted from 500 on. Where the headers do not say so, the JSON body of a response that has been read does:
    `retryable`, and `retryAfter` or `retry_after` in seconds, of problem details (RFC 9457), at top level or under
    `extensions`, and `retryDelay` of google.rpc.RetryInfo in the `error.details` of a google.rpc.Status.

    Args:
        statuses: the status codes that are failures, each from 400 to 599. They replace those of the table.

    Raises:
        TypeError: `statuses` is not iterable, or has an element that is not an integer.
        ValueError: a status code is out of range.
    """
    given: Any = statuses
    if not isinstance(given, Iterable):
        raise TypeError(f"statuses must be several status codes, such as [502, 503], not {given!r}")
    listed = frozenset(validation.integer("a status", status, low=400, high=599) for status in statuses)

    def status_of_result(result: object) -> Failure | None:
        status = http_status.status_of(result)
        if status is None or status < 400:
            return None
        if status == http_status.CONFLICT and http_status.extension_of(result, http_status.KEYED):
            return with_hints(_ABOUT_THE_REQUEST, _hints(result, status))
        return failure_of(status, _hints(result, status), listed)

    def status_of_error(error: Exception) -> Verdict:
        status = http_status.status_of(error)
        if http_status.is_throttled(error):
            return with_hints(http_status.THROTTLED, NO_HINTS if status is None else _hints(error, status))
        if status is None:
            return None
        return ANSWER if status < 400 else failure_of(status, _hints(error, status), listed) or ANSWER

    return Allowlist(when=status_of_error) | Allowlist.of_results(status_of_result)


def failure_of(status: int, hints: Hints = NO_HINTS, listed: frozenset[int] = STATUSES) -> Failure | None:
    """Return the failure for a status code and the hints of its response; None if it is an answer.

    Args:
        status: the status code.
        hints: what the server says about retries.
        listed: the status codes that are failures.
    """
    if status in listed:
        return with_hints(TABLE.get(status, TRANSIENT), hints)
    if hints.should_retry and status >= 400:
        return with_hints(TRANSIENT if status >= 500 else _ABOUT_THE_REQUEST, hints)
    return None


def with_hints(failure: Failure, hints: Hints) -> Failure:
    """Return a failure with the hints of its response."""
    if hints == NO_HINTS:
        return failure
    return replace(failure, retry_after=hints.retry_after, retryable=hints.should_retry is not False)


def _hints(outcome: object, status: int) -> Hints:
    headers = http_status.headers_of(outcome)
    if headers is None:
        return NO_HINTS
    retry_after, should_retry = hints_of(headers, status)
    if should_retry is False and http_status.extension_of(outcome, http_status.OUR_VERDICT):
        should_retry = None
    if retry_after is None or should_retry is None:
        in_body = body_hints_of(outcome, headers)
        retry_after = in_body.retry_after if retry_after is None else retry_after
        should_retry = in_body.should_retry if should_retry is None else should_retry
    return Hints(retry_after, should_retry)


HTTP_FAILURES: Final = NETWORK_ERRORS | status_failures()
"""The failures of HTTP: `NETWORK_ERRORS` and `status_failures()`, for any client.

They are the default `failures` of clients and transports of `resilience.httpx` whose pipeline has none. A pipeline
around functions that use HTTP has to be given them.
"""
