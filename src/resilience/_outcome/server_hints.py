"""What a server says about retries in the headers of a response: Retry-After and its kin."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

LONGEST: Final = sys.float_info.max
"""The hint of a server that names a number of seconds which is too large for a float."""
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_ELEMENT: Final = re.compile(r"(?:[ \t]*[A-Za-z]{3,9},)?[^,]+")
"""One element of a list; an HTTP-date has a comma of its own, after the day of the week."""
_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_QUOTAS: Final = ("ratelimit", "x-ratelimit")
_QUOTA_STATUSES: Final = frozenset({429, 503})
_NAMES: Final = frozenset(
    {
        "date",
        "retry-after",
        "x-should-retry",
        *_MILLISECONDS,
        *(f"{quota}-{field}" for quota in _QUOTAS for field in ("remaining", "reset")),
    }
)
_EPOCH: Final = 1e9
"""Where a reset is a point in time and no duration: as seconds since 1970, these are 2001 and later."""
_EPOCH_IN_MILLISECONDS: Final = 1e12


class Hints(NamedTuple):
    """What a server says about retries.

    Attributes:
        retry_after: the seconds before the next attempt; None for no such hint.
        should_retry: whether the request may be repeated; None if the server does not say.
    """

    retry_after: float | None = None
    should_retry: bool | None = None


NO_HINTS: Final = Hints()


def hints_of(headers: Any, status: int) -> Hints:
    """Return the hints in the headers of a response. Anything that is no valid hint is ignored.

    The first usable one of these is the time: `retry-after-ms` and `x-ms-retry-after-ms`; Retry-After (RFC 9110
    10.2.3); with status 429 or 503 and a quota of which nothing remains, RateLimit-Reset and X-RateLimit-Reset.
    `x-should-retry` says whether to repeat the request at all.

    Args:
        headers: a mapping, whose names may be in any case, or pairs; names and values are strings or bytes. Headers
            that occur more than once may be joined by commas, or be several items.
        status: the status code of the response.
    """
    try:
        found = _relevant(headers)
    except Exception:  # what claims to be headers may be anything
        return NO_HINTS
    if not found:
        return NO_HINTS
    return Hints(_retry_after(found, status), _should_retry(found.get("x-should-retry", "")))


def seconds_in(value: str, date: str | None = None) -> float | None:
    """Return the seconds in a Retry-After header (RFC 9110 10.2.3); None where it is no valid hint.

    The RFC permits a number of digits, or an HTTP-date; decimals are accepted, too. Of a list, which repeated headers
    are joined to, the greatest counts. A number that is too large for a float is the longest hint, and not none. A
    negative number, NaN, a date in the past and anything else are ignored.

    Args:
        value: the value of the header.
        date: the Date header of the same response. An HTTP-date counts from there, so that the clocks of server and
            client need not agree; it is ignored without that.
    """
    seconds = [_element(one.strip(" \t"), date) for one in _ELEMENT.findall(value)]
    known = [one for one in seconds if one is not None]
    return max(known) if known and len(known) == len(seconds) else None


def _relevant(headers: Any) -> dict[str, str]:
    """Return the headers that are hints, or that hints need; repeated ones joined by commas."""
    found: dict[str, str] = {}
    items: Iterable[tuple[Any, Any]] = headers.items() if hasattr(headers, "items") else headers or ()
    for key, value in items:
        name = _text(key).lower()
        if name in _NAMES:
            text = _text(value)
            found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _retry_after(found: dict[str, str], status: int) -> float | None:
    """Return the seconds of the first usable hint."""
    for name in _MILLISECONDS:
        milliseconds = seconds_in(found.get(name, ""))
        if milliseconds is not None:
            return milliseconds if milliseconds == LONGEST else milliseconds / 1000
    seconds = seconds_in(found.get("retry-after", ""), found.get("date"))
    if seconds is None and status in _QUOTA_STATUSES:
        return _until_reset(found)
    return seconds


def _until_reset(found: dict[str, str]) -> float | None:
    """Return the seconds until the quota of the first RateLimit family is filled again, if nothing of it remains.

    Most servers send a number of seconds. Others send a point in time, in seconds or milliseconds since 1970, which
    counts from the Date of the response.
    """
    for quota in _QUOTAS:
        reset = seconds_in(found.get(f"{quota}-reset", ""))
        if reset is not None and seconds_in(found.get(f"{quota}-remaining", "")) == 0:
            if reset > _EPOCH:
                now = _timestamp(found.get("date"))
                reset = -1.0 if now is None else (reset / 1000 if reset > _EPOCH_IN_MILLISECONDS else reset) - now
            if reset >= 0:
                return reset
    return None


def _should_retry(value: str) -> bool | None:
    return {"true": True, "false": False}.get(value.strip(" \t").lower())


def _element(value: str, date: str | None) -> float | None:
    """Return the seconds in one number or HTTP-date; None if it is neither."""
    if _NUMBER.fullmatch(value):
        return min(float(value), LONGEST)
    now = _timestamp(date)
    at = None if now is None else _timestamp(value)
    return None if now is None or at is None or at < now else at - now


def _timestamp(date: str | None) -> float | None:
    """Return an HTTP-date (RFC 9110 5.6.7) as seconds since 1970; None if it is missing or invalid."""
    if not date:
        return None
    import datetime  # these are here, since few servers send dates, and the second one imports sockets
    import email.utils

    try:
        parsed = email.utils.parsedate_to_datetime(date)
        # A date without a time zone, such as that of asctime, is in UTC.
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()
    except (IndexError, OverflowError, TypeError, ValueError):  # of the parser, for some kinds of garbage
        return None
