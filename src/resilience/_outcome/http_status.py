"""HTTP status codes: which of them are failures, and where responses and exceptions of clients keep theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from resilience._outcome.failure import Failure, FailureKind

_TURNED_AWAY = Failure(FailureKind.OVERLOAD, unprocessed=True, counted=False)
_ABOUT_THE_CALLER = Failure(counted=False)
_OVERLOADED = Failure(FailureKind.OVERLOAD)
_BROKEN = Failure()
_UNREACHABLE = Failure(unprocessed=True)
_TIMED_OUT = Failure(FailureKind.TIMEOUT)

TABLE: Final[Mapping[int, Failure]] = {
    408: Failure(FailureKind.TIMEOUT, counted=False),  # RFC 9110 15.5.9: the request did not arrive in time
    425: _ABOUT_THE_CALLER,  # RFC 8470: the request came in early data, which could be a replay
    429: _TURNED_AWAY,  # RFC 6585: this caller has sent too many requests
    500: _BROKEN,
    502: _BROKEN,
    503: _OVERLOADED,
    504: _TIMED_OUT,  # a gateway got no answer in time
    520: _BROKEN,  # 520 to 524 are those of Cloudflare's proxies, about the server behind them
    521: _UNREACHABLE,  # it refuses connections
    522: Failure(FailureKind.TIMEOUT, unprocessed=True),  # no connection could be made in time
    523: _UNREACHABLE,  # there is no route to it
    524: _TIMED_OUT,  # it did not answer in time
    529: Failure(FailureKind.OVERLOAD, unprocessed=True),  # several providers of models turn requests away with it
}
"""The failure for each status code that is one by default; every other status code is an answer."""
STATUSES: Final = frozenset(TABLE)
"""The status codes that are failures by default."""

THROTTLED: Final = Failure(FailureKind.OVERLOAD, counted=False)
"""The failure for an error code of AWS that means throttling.

It is not known to be unprocessed: botocore retries by itself, and the last attempt does not say what became of the ones
before it.
"""
AWS_THROTTLING_CODES: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
"""The error codes that botocore takes for throttling in its retry mode "standard"; most come with status 400."""

CONFLICT: Final = 409
"""The status of a repeated request whose first one still runs (draft-ietf-httpapi-idempotency-key-header 2.7)."""
OUR_VERDICT: Final = "resilience_verdict"
"""The extension of a response whose `x-should-retry` was set by an integration, and not by the server."""
KEYED: Final = "resilience_key"
"""The extension of a response to a request with an idempotency key that an integration has made."""

_STATUS: Final = ("status_code", "status", "http_status", "code")
_NAMES: Final = frozenset({*_STATUS, "response", "headers", "meta"})
_declared: dict[type, frozenset[str]] = {}
_without_status: set[type] = set()
"""The types of which no instance has a status code, such as str and dict."""
MAX_CACHED_TYPES: Final = 10_000
"""The most types whose declared attributes are cached: a program may create types without limit."""
_NOTHING: Final[Mapping[str, Any]] = {}


def status_of(outcome: object, *, follow: bool = True) -> int | None:
    """Return the HTTP status code of a response, or of an exception that was made of one; None if it has none.

    That is an integer from 100 to 599 in `status_code`, `status`, `http_status` or `code`, in this order, or else that
    of `response`, which may be a dict of botocore. A method, such as gRPC's `code()`, is no status code. Only the type
    and the `__dict__` of the object are searched: a `__getattr__` may do anything, such as asking a remote server.

    Args:
        outcome: the returned value or the exception.
        follow: whether to look at `response`, too.
    """
    kind = type(outcome)
    if kind in _without_status:
        return None
    own: Mapping[str, Any] = getattr(outcome, "__dict__", _NOTHING)
    code: int = own.get("status_code", 0)
    if code.__class__ is int and 100 <= code <= 599:  # most responses, and fast
        return code
    declared = _declared_by(kind)
    if not declared and _NAMES.isdisjoint(own):
        return None
    for name in _STATUS:
        if name in own or name in declared:
            status = _checked(own[name] if name in own else _attribute(outcome, name))
            if status is not None:
                return status
    if not follow:
        return None
    response = _read(outcome, "response")
    if isinstance(response, dict):
        return _checked(_item(response, "ResponseMetadata", "HTTPStatusCode"))
    return status_of(response, follow=False)


def looks_like_response(outcome: object) -> bool:
    """Return whether an object is like an HTTP response: it has a `status_code`, or a `status` and `headers`."""
    return _has(outcome, "status_code") or (_has(outcome, "status") and _has(outcome, "headers"))


def is_throttled(error: object) -> bool:
    """Return whether an exception of botocore has an error code that means throttling."""
    return _item(_read(error, "response"), "Error", "Code") in AWS_THROTTLING_CODES


def extension_of(outcome: object, name: str) -> Any:
    """Return an extension of a response of httpx, or of that of an exception; None if it has none of this name."""
    own: Mapping[str, Any] = getattr(outcome, "__dict__", _NOTHING)
    extensions: Any = own.get("extensions")
    if issubclass(type(extensions), dict):
        return extensions.get(name)
    response = own.get("response")
    return None if response is None or response is outcome else extension_of(response, name)


def content_of(outcome: object) -> bytes | None:
    """Return the body of a response of httpx or requests, or of that of an exception, if it has been read.

    Nothing is read for it: only the attribute in which both keep what was read is looked at.
    """
    own: Mapping[str, Any] = getattr(outcome, "__dict__", _NOTHING)
    content: Any = own.get("_content")
    if issubclass(type(content), bytes):
        read: bytes = content
        return read
    response = own.get("response")
    return None if response is None or response is outcome else content_of(response)


def headers_of(outcome: object) -> Any:
    """Return the headers of a response, or of an exception that was made of one; None if there are none."""
    response = _read(outcome, "response")
    if isinstance(response, dict):
        return _item(response, "ResponseMetadata", "HTTPHeaders")
    for holder in (outcome, response, _read(outcome, "meta")):  # elasticsearch has them in `meta`
        headers = _read(holder, "headers")
        if headers:
            return headers
    return None


def _checked(value: Any) -> int | None:
    """Return a value as a status code; None if it is none. A bool is an integer, but out of the range."""
    return int(value) if isinstance(value, int) and 100 <= value <= 599 else None


def _has(outcome: object, name: str) -> bool:
    return name in getattr(outcome, "__dict__", _NOTHING) or name in _declared_by(type(outcome))


def _read(outcome: object, name: str) -> Any:
    """Return an attribute that an object has, or that its type declares; otherwise None."""
    return _attribute(outcome, name) if _has(outcome, name) else None


def _attribute(outcome: object, name: str) -> Any:
    """Return an attribute; None if it is a property that raises."""
    try:
        return getattr(outcome, name, None)
    except Exception:
        return None


def _declared_by(kind: type) -> frozenset[str]:
    """Return which of the attributes a type declares: slots, properties and defaults, not what instances set."""
    declared = _declared.get(kind)
    if declared is None:
        spaces = [vars(base) for base in kind.__mro__]
        found = {name for name in _NAMES if any(name in space for space in spaces)}
        if isinstance(getattr(kind, "code", None), property):
            found.discard("code")  # of aiohttp and websockets; it repeats another attribute and is deprecated
        declared = frozenset(found)
        if len(_declared) < MAX_CACHED_TYPES:
            _declared[kind] = declared
            if not declared and kind.__dictoffset__ == 0:
                _without_status.add(kind)
    return declared


def _item(mapping: Any, *keys: str) -> Any:
    """Return an item of nested dicts; None if there is none."""
    found: Any = mapping
    for key in keys:
        found = found.get(key) if issubclass(type(found), dict) else None
    return found
