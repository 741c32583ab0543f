"""The headers in which a call carries its remaining time and its attempt number to another process.

They are those of the proxy Envoy, as no standard has any (documentation of Envoy, HTTP filters, Router):

- `x-envoy-expected-rq-timeout-ms`: the milliseconds in which the caller expects the response.
- `x-envoy-attempt-count`: which attempt the request is, 1 for the first and one more for each retry.

Both are strings of ASCII digits. Headers are read from strangers, so any other value is ignored, and so is one that is
too large to be meant.
"""

from __future__ import annotations

import math
from typing import Final

REMAINING_TIME: Final = "x-envoy-expected-rq-timeout-ms"
"""The name of the header with the remaining time, in milliseconds."""
ATTEMPT_COUNT: Final = "x-envoy-attempt-count"
"""The name of the header, or of the key in the metadata of gRPC, with the attempt number."""
LONGEST: Final = 86_400_000
"""The longest remaining time that is believed, in milliseconds: one day."""
LONGEST_WAIT: Final = 1e9
"""The longest wait that is sent, in seconds: some thirty years."""
MOST_ATTEMPTS: Final = 9_999
"""The greatest attempt number that is believed."""


def remaining_time(value: str | bytes) -> float | None:
    """Return the remaining time of a header, in seconds, from 0, which means expired, up to one day.

    Args:
        value: the value of the header.

    Returns:
        None if it is not a string of ASCII digits, or longer than a day.
    """
    milliseconds = _number(value, LONGEST)
    return None if milliseconds is None else milliseconds / 1000


def attempt_count(value: str | bytes) -> int | None:
    """Return the attempt number of a header, from 1, which is the first attempt, up to 9,999.

    Args:
        value: the value of the header.

    Returns:
        None if it is not a string of ASCII digits, or out of that range.
    """
    return _number(value, MOST_ATTEMPTS) or None


def headers_for(deadline: float, attempt: int, now: float) -> dict[str, str]:
    """Return the headers of an outgoing request.

    Args:
        deadline: the deadline of the request, in seconds of the library's monotonic clock; infinity for none. The
            remaining time is rounded down, and 0 if the deadline has passed. It is left out without a deadline, and
            if it is more than a day, which would not be believed.
        attempt: the attempt number, >= 1.
        now: the current time of that clock.
    """
    milliseconds = max(0.0, (deadline - now) * 1000)
    headers = {ATTEMPT_COUNT: str(attempt)}
    if milliseconds <= LONGEST:
        headers[REMAINING_TIME] = str(math.floor(milliseconds))
    return headers


def retry_after_header(seconds: float | None) -> str | None:
    """Return the value of Retry-After (RFC 9110 10.2.3) for a rejection: whole seconds, rounded up, at least 0.

    Args:
        seconds: the seconds until a further call may succeed; None if unknown.

    Returns:
        None where there is no such time, or none that a header can say.
    """
    if seconds is None or not math.isfinite(seconds) or seconds > LONGEST_WAIT:
        return None
    return str(max(0, math.ceil(seconds)))


def _number(value: str | bytes, greatest: int) -> int | None:
    """Return a number of ASCII digits that is not above `greatest` and has no more digits; None for anything else."""
    if not value.isascii() or not value.isdigit() or len(value) > len(str(greatest)):
        return None
    number = int(value)
    return number if number <= greatest else None
