"""What a server says about retries in the body of a response: problem details, and google.rpc.Status."""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn, TypeGuard

from resilience._outcome.http_status import content_of, extension_of
from resilience._outcome.rate_limit_fields import LONGEST, number_in
from resilience._outcome.server_hints import NO_HINTS, Hints, content_type_in

MOST_BYTES: Final = 65_536
"""The longest body that is parsed: that of an error is seldom above a few KiB, and parsing takes time of the call."""
HINTS: Final = "resilience_hints"
"""The extension of a response of httpx with the hints in its body, which an integration has read."""
_TYPES: Final = frozenset({"application/json", "application/problem+json"})
_TIMES: Final = ("retryAfter", "retry_after")
_RETRY_INFO: Final = "google.rpc.RetryInfo"
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]{1,9})?)s")


def hints_in_body(content_type: str, body: bytes) -> Hints:
    """Return the hints in the body of a response. Anything that is no valid hint is ignored.

    The body is that of `application/problem+json` (problem details, RFC 9457) or `application/json`. No standard has
    members for retries; these are in use, and the first usable one of each kind counts:

    - `retryable` is a boolean, and `retryAfter` or `retry_after` a number of seconds, or a string of one; at the top
      level, or else in the object `extensions`.
    - `error.details` of a google.rpc.Status in JSON, also of one in an array, has an element of the type
      google.rpc.RetryInfo, whose `retryDelay` is a Duration in the JSON of Protocol Buffers, such as "53s"
      (google/rpc/error_details.proto).

    A number that is too large for a float is the longest hint, `LONGEST`. Negative numbers, bodies above MOST_BYTES,
    other content types, and what is no JSON (RFC 8259, which has no NaN) are ignored. Hints in headers take precedence.

    Args:
        content_type: the Content-Type of the response, with or without parameters.
        body: the whole body, decoded by its Content-Encoding.
    """
    if not 0 < len(body) <= MOST_BYTES or not may_have_hints(content_type):
        return NO_HINTS
    import json  # here, since most responses have no such body

    try:
        # Integers are parsed as floats, since Python refuses those of thousands of digits.
        document = json.loads(body, parse_int=float, parse_constant=_refused)
    except (RecursionError, ValueError):  # nested too deeply, or no JSON
        return NO_HINTS
    if _is_array(document) and document and _is_object(document[0]):  # of a streaming method of Google's APIs
        return Hints(_retry_delay(document[0].get("error")))
    if not _is_object(document):
        return NO_HINTS
    retry_after: float | None = None
    should_retry: bool | None = None
    for members in (document, document.get("extensions")):
        if _is_object(members):
            for name in _TIMES:
                retry_after = _seconds_in(members.get(name)) if retry_after is None else retry_after
            if should_retry is None and isinstance(members.get("retryable"), bool):
                should_retry = members["retryable"]
    return Hints(_retry_delay(document.get("error")) if retry_after is None else retry_after, should_retry)


def may_have_hints(content_type: str) -> bool:
    """Return whether bodies of that Content-Type may have hints."""
    return content_type.partition(";")[0].strip(" \t").lower() in _TYPES


def body_hints_of(outcome: object, headers: Any) -> Hints:
    """Return the hints in the body of a response, or of that of an exception, if it has been read.

    Args:
        outcome: the response or the exception.
        headers: the headers of the response.
    """
    known: Any = extension_of(outcome, HINTS)
    if known is not None:
        hints: Hints = known
        return hints
    body = content_of(outcome)
    return NO_HINTS if not body else hints_in_body(content_type_in(headers), body)


def _refused(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts."""
    raise ValueError(constant)


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _seconds_in(value: object) -> float | None:
    """Return a number of seconds, or a string of one; None for anything else."""
    if isinstance(value, str):
        return number_in(value)
    return min(value, LONGEST) if isinstance(value, float) and value >= 0 else None


def _retry_delay(error: object) -> float | None:
    """Return the first valid delay of RetryInfo in the details of a google.rpc.Status."""
    details = error.get("details") if _is_object(error) else None
    for detail in details if _is_array(details) else ():
        kind, delay = (detail.get("@type"), detail.get("retryDelay")) if _is_object(detail) else (None, None)
        if isinstance(kind, str) and isinstance(delay, str) and kind.endswith(_RETRY_INFO):
            seconds = _DURATION.fullmatch(delay)
            if seconds is not None:
                return number_in(seconds[1])
    return None
