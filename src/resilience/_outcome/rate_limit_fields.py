"""What a server says about its quotas in the headers of a response: RateLimit, and what was used before it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from resilience._outcome.ending import Hint

LONGEST: Final = sys.float_info.max
"""The hint of a server that names a number which is too large for a float."""
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_EPOCH: Final = 1e9
"""Where a reset is a point in time and no duration: as seconds since 1970, these are 2001 and later."""
_EPOCH_IN_MILLISECONDS: Final = 1e12
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+")
_PART: Final = re.compile(r"([0-9.]+)([a-zµ]+)")
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)

_BARE_ITEM: Final = re.compile(
    r"""
      -?[0-9]{1,12}\.[0-9]{1,3}                                               # a Decimal
    | -?[0-9]{1,15}                                                           # an Integer
    | "(?:[ !#-\[\]-~]|\\["\\])*"                                             # a String
    | [A-Za-z*][A-Za-z0-9:/!\#$%&'*+.^_`|~-]*                                 # a Token
    | :(?:(?!=)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2,3})?={0,2})?:          # a Byte Sequence
    | \?[01]                                                                  # a Boolean
    | @-?[0-9]{1,15}                                                          # a Date
    | %"(?:[ !#$&-~]|%[0-9a-f]{2})*"                                          # a Display String
    """,
    re.VERBOSE,
)
_KEY: Final = re.compile(r";\x20*([a-z*][a-z0-9_.*-]*)")
_SEPARATOR: Final = re.compile(r"[ \t]*(,?)[ \t]*")
_INTEGER: Final = re.compile(r"-?[0-9]+")


class Quota(NamedTuple):
    """One quota of a server.

    Attributes:
        remaining: how much of it remains, >= 0.
        resets_in: the seconds until there is more of it, >= 0; None if the server does not say.
    """

    remaining: float
    resets_in: float | None


class _Pair(NamedTuple):
    """The names of the headers of one quota: that of what remains, and those of its reset, the first usable wins."""

    remaining: str
    resets: tuple[str, ...]


_FIELD: Final = "ratelimit"
_FAMILIES: Final = (
    (_Pair("ratelimit-remaining", ("ratelimit-reset",)),),
    (_Pair("x-ratelimit-remaining", ("x-ratelimit-reset-after", "x-ratelimit-reset")),),
    tuple(
        _Pair(f"x-ratelimit-remaining-{unit}", (f"x-ratelimit-reset-{unit}",))  # OpenAI, Azure, Groq
        for unit in ("requests", "tokens")
    ),
    tuple(
        _Pair(f"anthropic-ratelimit-{unit}-remaining", (f"anthropic-ratelimit-{unit}-reset",))
        for unit in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)
CONTEXT: Final = frozenset({"age", "date"})
"""Headers that say nothing about a quota, but that the others need."""
NAMES: Final = frozenset(
    {_FIELD, *CONTEXT, *(name for pairs in _FAMILIES for pair in pairs for name in (pair.remaining, *pair.resets))}
)
"""The lower-case names of all headers that `hints_in` reads."""


def hints_in(headers: Mapping[str, str]) -> Iterator[Hint]:
    """Yield what each family of headers says about the quotas of the server; nothing for one that is not usable.

    The families are, in this order:

    1. RateLimit (draft-ietf-httpapi-ratelimit-headers-11);
    2. RateLimit-Remaining and RateLimit-Reset (the drafts up to 06);
    3. X-RateLimit-Remaining with X-RateLimit-Reset-After, or else with X-RateLimit-Reset;
    4. X-RateLimit-Remaining-Requests and -Tokens with X-RateLimit-Reset-Requests and -Tokens;
    5. Anthropic-RateLimit-Requests-Remaining and -Reset, and those of Tokens, Input-Tokens and Output-Tokens.

    Of the quotas of one family, those with nothing remaining matter, and of them the one that resets last; if there is
    none, the one of which the least remains.

    A reset is a number of seconds, or a duration as Go writes it, such as "6m0s" or "120ms", or a point in time, which
    counts from the Date of the response and is ignored without that: above 1e9 it is in seconds since 1970, above
    1e12 in milliseconds, and it may be an RFC 3339 timestamp. A number that is too large for a float is the longest.
    A pair of headers with anything else, such as a negative number, NaN, or a point in time that has passed, is
    ignored, and so is a reset of "0" in an X-RateLimit header, which Azure sends where it does not know. Repeated
    headers are lists: the elements of the two headers of a pair belong together.

    A response from a cache, with an Age above 0, says nothing about the quotas as they are now (the draft, 7.3).

    Args:
        headers: the values by lower-case names; repeated headers are joined by commas.
    """
    if "age" in headers and number_in(headers["age"]):
        return
    hint = _strictest(quotas_in(headers[_FIELD])) if _FIELD in headers else None
    if hint is not None:
        yield hint
    for pairs in _FAMILIES:
        hint = _strictest([quota for pair in pairs if pair.remaining in headers for quota in _quotas_of(pair, headers)])
        if hint is not None:
            yield hint


def quotas_in(field: str) -> list[Quota]:
    """Return the quotas in a RateLimit header; none if it is malformed, as the draft demands (section 7).

    The header is a List of Items with the Integer parameters `r`, what remains, and `t`, the seconds within which there
    is no more; `t` may be missing. `pk` is a Byte Sequence; other parameters are allowed, and ignored. The syntax is
    that of structured fields (RFC 9651 4.2). An Inner List is malformed, since it is no Item.

    Args:
        field: the value of the header; repeated headers are joined by commas.
    """
    value = field.strip(" ")
    quotas: list[Quota] = []
    position = 0
    try:
        while True:
            parameters, position = _item(value, position)
            quotas.append(_quota(parameters))
            separator = _SEPARATOR.match(value, position)
            if separator is None or not separator[1]:
                break
            position = separator.end()
    except ValueError:
        return []
    return quotas if not value[position:].strip(" \t") else []


def number_in(value: str) -> float | None:
    """Return a number of decimal digits with or without a fraction, at most LONGEST; None for anything else."""
    return min(float(value), LONGEST) if _NUMBER.fullmatch(value) else None


@lru_cache(maxsize=16)  # all resets of a response, and all responses of a second, have the same Date
def timestamp_in(date: str | None) -> float | None:
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


def _strictest(quotas: list[Quota]) -> Hint | None:
    """Return the hint of several quotas; None if the time of those that matter is not known."""
    exhausted = [quota for quota in quotas if quota.remaining == 0]
    timed = [Hint(quota.remaining, quota.resets_in) for quota in exhausted or quotas if quota.resets_in is not None]
    if not timed:
        return None
    least = min(hint.remaining for hint in timed)
    return Hint(least, max(hint.resets_in for hint in timed if hint.remaining == least))


def _quotas_of(pair: _Pair, headers: Mapping[str, str]) -> list[Quota]:
    """Return the quotas in one pair of headers."""
    counts = [number_in(count.strip(" \t")) for count in headers[pair.remaining].split(",")]
    for name in pair.resets:
        resets = [_until(reset.strip(" \t"), name, headers) for reset in headers.get(name, "").split(",")]
        shared = counts * len(resets) if len(counts) == 1 else counts
        if len(shared) == len(resets):
            pairs = zip(shared, resets, strict=True)
            quotas = [Quota(count, reset) for count, reset in pairs if count is not None and reset is not None]
            if quotas:
                return quotas
    return []


def _until(reset: str, name: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a reset; None if it is no valid one.

    Args:
        reset: the value of the header, or an element of it.
        name: the name of the header.
        headers: those of the response.
    """
    seconds = number_in(reset)
    if seconds is None:
        if _DURATION.fullmatch(reset):
            return min(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(reset)), LONGEST)
        at = _rfc_3339(reset)
    elif seconds == 0 and name.startswith("x-"):
        return None
    elif seconds <= _EPOCH or seconds == LONGEST:
        return seconds
    else:
        at = seconds / 1000 if seconds > _EPOCH_IN_MILLISECONDS else seconds
    now = None if at is None else timestamp_in(headers.get("date"))
    return None if at is None or now is None or at < now else at - now


def _rfc_3339(value: str) -> float | None:
    """Return an RFC 3339 timestamp as seconds since 1970; None if it is none."""
    if not _RFC_3339.fullmatch(value):
        return None
    import datetime  # here, since few servers send these

    try:
        return datetime.datetime.fromisoformat(value.upper()).timestamp()
    except ValueError:  # such as the month 13
        return None


def _item(value: str, position: int) -> tuple[dict[str, str], int]:
    """Read one Item (RFC 9651 4.2.3), and return the text of its parameters, and where it ends.

    Raises:
        ValueError: there is no valid one.
    """
    _, position = _bare_item(value, position)
    parameters: dict[str, str] = {}
    while (key := _KEY.match(value, position)) is not None:
        position = key.end()
        parameters[key[1]] = "?1"  # 4.2.3.2: a parameter without a value is true
        if value.startswith("=", position):
            parameters[key[1]], position = _bare_item(value, position + 1)
    return parameters, position


def _bare_item(value: str, position: int) -> tuple[str, int]:
    """Read one bare item (RFC 9651 4.2.3.1), and return its text, and where it ends.

    Raises:
        ValueError: there is no valid one.
    """
    found = _BARE_ITEM.match(value, position)
    if found is None:
        raise ValueError(value)
    text = found[0]
    if text.startswith("%"):
        import urllib.parse  # here, since Display Strings are rare

        urllib.parse.unquote(text, errors="strict")  # it must be UTF-8
    return text, found.end()


def _quota(parameters: Mapping[str, str]) -> Quota:
    """Return the quota of one Item of RateLimit.

    Raises:
        ValueError: a parameter is missing, or is not what the draft demands.
    """
    if not parameters.get("pk", "::").startswith(":"):
        raise ValueError(parameters)
    resets_in = parameters.get("t")
    return Quota(_non_negative(parameters.get("r", "")), None if resets_in is None else _non_negative(resets_in))


def _non_negative(text: str) -> float:
    """Return a non-negative Integer.

    Raises:
        ValueError: it is none.
    """
    if not _INTEGER.fullmatch(text) or int(text) < 0:
        raise ValueError(text)
    return float(int(text))
