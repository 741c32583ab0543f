"""What a server says about retries in the headers of a response: Retry-After and its kin."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from resilience._outcome.ending import Hint
from resilience._outcome.rate_limit_fields import CONTEXT, NAMES, hints_in, number_in, timestamp_in
from resilience._outcome.rate_limit_fields import LONGEST as LONGEST

_ELEMENT: Final = re.compile(r"(?:[ \t]*[A-Za-z]{3,9},)?[^,]+")
"""One element of a list; an HTTP-date has a comma of its own, after the day of the week."""
_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_QUOTA_STATUSES: Final = frozenset({429, 503})
_TEXTS: Final = frozenset({"retry-after", "x-should-retry", *_MILLISECONDS, *NAMES})
_NAMES: Final[frozenset[str | bytes]] = _TEXTS | {name.encode() for name in _TEXTS}
"""The names of all headers that matter here, as strings and as bytes, so that no other name has to be decoded."""
QUOTA_NAMES: Final = frozenset(name.encode() for name in NAMES - CONTEXT)
"""The lower-case names of the headers of which `quota_of` needs one at least."""
_CONTENT_TYPE: Final[frozenset[str | bytes]] = frozenset({"content-type", b"content-type"})


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
    10.2.3), which takes precedence over RateLimit by its draft, too; with status 429 or 503, the reset of a quota of
    which nothing remains, in the headers of `quota_of` and in their order. `x-should-retry` says whether to repeat
    the request at all.

    Args:
        headers: a mapping, whose names may be in any case, or pairs; names and values are strings or bytes. Headers
            that occur more than once may be joined by commas, or be several items.
        status: the status code of the response.
    """
    found = _relevant(headers)
    if not found:
        return NO_HINTS
    return Hints(_retry_after(found, status), _should_retry(found.get("x-should-retry", "")))


def quota_of(headers: Any) -> Hint | None:
    """Return what the headers of a response, also of a good one, say about the quotas of the server; None for nothing.

    The first usable one of these counts: RateLimit (draft-ietf-httpapi-ratelimit-headers-11), RateLimit-Remaining and
    -Reset, X-RateLimit-Remaining and -Reset or -Reset-After, the same for requests and tokens as OpenAI and Azure have
    it, and the headers of Anthropic. See `rate_limit_fields.hints_in` for the rules of each.

    Args:
        headers: as for `hints_of`.
    """
    found = _relevant(headers)
    return next(hints_in(found), None) if found else None


def content_type_in(headers: Any) -> str:
    """Return the Content-Type in the headers of a response; "" if there is none.

    Args:
        headers: as for `hints_of`.
    """
    return _found_in(headers, _CONTENT_TYPE).get("content-type", "")


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
    """Return the headers that are hints, and those that hints need; empty if none of them is a hint."""
    found = _found_in(headers, _NAMES)
    return {} if found.keys() <= CONTEXT else found


def _found_in(headers: Any, names: frozenset[str | bytes]) -> dict[str, str]:
    """Return the headers of these names, repeated ones joined by commas; empty for anything that is not headers."""
    found: dict[str, str] = {}
    try:
        items: Iterable[tuple[Any, Any]] = headers.items() if hasattr(headers, "items") else headers or ()
        for key, value in items:
            if key.lower() in names:
                name, text = _text(key).lower(), _text(value)
                found[name] = f"{found[name]}, {text}" if name in found else text
    except Exception:  # what claims to be headers may be anything
        return {}
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
        return next((hint.resets_in for hint in hints_in(found) if hint.remaining == 0), None)
    return seconds


def _should_retry(value: str) -> bool | None:
    return {"true": True, "false": False}.get(value.strip(" \t").lower())


def _element(value: str, date: str | None) -> float | None:
    """Return the seconds in one number or HTTP-date; None if it is neither."""
    seconds = number_in(value)
    if seconds is not None:
        return seconds
    now = timestamp_in(date)
    at = None if now is None else timestamp_in(value)
    return None if now is None or at is None or at < now else at - now
