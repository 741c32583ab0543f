"""Calls that a server handles: what they bring along, which are refused, and what an error of a handler becomes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeAlias

import grpc

from resilience._call.ambient import Ambient, InboundRequest, ambient
from resilience._call.propagation import ATTEMPT_COUNT, attempt_count
from resilience._outcome.failure import leaves
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience.errors import DeadlineExceededError, RejectedError

_PREVIOUS_ATTEMPTS: Final = "grpc-previous-rpc-attempts"
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_NO_DEADLINE: Final = 1e9
"""The seconds from which on a remaining time means no deadline: synchronous servers report some 9e18 then."""

Behavior: TypeAlias = Callable[..., Any]
"""A method of a service: a function of the request, or the iterator of requests, and the context."""
Begin: TypeAlias = "Callable[[Any], InboundCall]"
"""Begins a call, given its context."""


class Status(NamedTuple):
    """The status that a call ends with. The details are fixed texts, which hold nothing of a call or an error."""

    code: grpc.StatusCode
    details: str


_TOO_LATE: Final = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "too little time is left for this call")
_DEADLINE: Final = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline of this call has passed")
_REJECTED: Final = Status(grpc.StatusCode.UNAVAILABLE, "a dependency of this service is unavailable")


class TooLateError(DeadlineExceededError):
    """A call has too little time left to be handled."""


class InboundRules:
    """What the interceptor of a server believes of calls, and which calls it refuses.

    Args:
        trust: whether the metadata of attempts is believed.
        min_remaining: the seconds, >= 0, that a call must have left.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.
    """

    __slots__ = ("_min_remaining", "_trust")

    def __init__(self, trust: bool, min_remaining: float) -> None:
        self._trust = validation.flag("trust", trust)
        self._min_remaining = validation.number("min_remaining", min_remaining)

    def wrap(self, handler: Any, metadata: Any, wrap: Callable[[Behavior, bool, Begin], Behavior]) -> Any:
        """Return the handler of a method with its behavior wrapped; its serializers stay.

        Args:
            handler: the handler that grpc has found; None, for an unknown method, is returned as it is, and so is a
                handler of the experimental non-blocking kind, which returns before the call ends.
            metadata: the metadata of the call; None for none.
            wrap: returns what to call in place of a behavior. It gets the behavior, whether responses are streamed, and
                what begins a call.
        """
        if handler is None:
            return None
        name, make = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        behavior = getattr(handler, name)
        if behavior is None or getattr(behavior, "experimental_non_blocking", False):
            return handler
        attempt = attempt_of(metadata or ()) if self._trust else 1
        wrapped = wrap(behavior, bool(handler.response_streaming), functools.partial(self._begin, attempt))
        functools.update_wrapper(wrapped, behavior)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _begin(self, attempt: int, context: Any) -> InboundCall:
        """Begin a call.

        Raises:
            TooLateError: less than `min_remaining` seconds are left, or none.
        """
        seconds = remaining_time(context)
        if seconds is None:
            return InboundCall(FOREVER, attempt) if attempt > 1 else _NOTHING
        if seconds == 0 or seconds < self._min_remaining:
            raise TooLateError
        return InboundCall(clock.monotonic() + seconds, attempt)


_KINDS: Final[dict[tuple[bool, bool], tuple[str, Callable[..., Any]]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""The attribute of the behavior, and the function that makes a handler, by whether requests and responses stream."""


class InboundCall:
    """What a call has brought along, until its handler has ended.

    It holds inside `with`, which is entered for each step of a handler: once for a function, and for each message of a
    generator. Steps may run in different threads, tasks and contexts, but never two at once. Between them the context
    is as it was before, and what a step has set, such as a `deadline_after` around a `yield`, holds in the next.

    Args:
        deadline: that of the caller, in seconds of the library's monotonic clock; infinity for none.
        attempt: which attempt of the caller it is, >= 1.
    """

    __slots__ = ("_inside", "_outside", "_request")

    def __init__(self, deadline: float, attempt: int) -> None:
        self._outside: Ambient = ambient.get()
        self._request = InboundRequest.begin(deadline, attempt)
        self._inside: Ambient = self._request
        ambient.set(self._outside)

    def __enter__(self) -> None:
        """Begin a step."""
        self._outside = ambient.get()
        ambient.set(self._inside)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a step."""
        self._inside = ambient.get()
        ambient.set(self._outside)

    def end(self) -> None:
        """Make it void, also in tasks and threads that have inherited it. To be called when the handler has ended."""
        self._request.end()


class _NothingInbound(InboundCall):
    """A call that has brought nothing along. There is one for all such calls."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass

    def end(self) -> None:
        """Do nothing."""


_NOTHING: Final = _NothingInbound()


def remaining_time(context: Any) -> float | None:
    """Return the seconds that a call has left, 0 if its deadline has passed; None without a deadline.

    Values that cannot be meant, such as negative ones, are none.
    """
    try:
        seconds = context.time_remaining()
    except (AttributeError, NotImplementedError):  # a context of another interceptor
        return None
    return seconds if isinstance(seconds, int | float) and 0 <= seconds < _NO_DEADLINE else None


def attempt_of(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Return which attempt of its caller a call is, by its metadata; 1 if unknown.

    `x-envoy-attempt-count` counts attempts, and `grpc-previous-rpc-attempts` (gRFC A6) those before this one. Of a
    retry through a proxy both may be there: the greater number holds.
    """
    found: dict[str, str | bytes] = {}
    for key, value in metadata:
        if key in (ATTEMPT_COUNT, _PREVIOUS_ATTEMPTS):
            found[key] = "" if key in found else value  # sent twice: it is unknown which of them is meant
    if not found:
        return 1
    previous = attempt_count(found.get(_PREVIOUS_ATTEMPTS, "")) or 0
    return max(attempt_count(found.get(ATTEMPT_COUNT, "")) or 1, previous + 1)


def status_of(error: Exception, context: Any) -> Status | None:
    """Return the status for an error of a handler; None if the error is to be raised on.

    These have a status: rejections, exceeded deadlines, and groups of nothing but these, as deadlines if one of them
    is. If the handler has set a status code or has aborted the call, that holds instead.
    """
    errors = list(leaves(error))
    if not all(isinstance(one, RejectedError | DeadlineExceededError) for one in errors):
        return None
    code = _ask(context, "code")
    if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:
        return None
    if isinstance(error, TooLateError):
        return _TOO_LATE
    return _DEADLINE if any(isinstance(one, DeadlineExceededError) for one in errors) else _REJECTED


def forbid_retries(context: Any) -> None:
    """Set a negative pushback in the trailing metadata, which asks the client not to retry (gRFC A6).

    What the handler has set is kept: its own pushback, too. Nothing is set if it is unknown whether there is anything.
    """
    trailing = _ask(context, "trailing_metadata", unknown=_UNKNOWN)
    if trailing is _UNKNOWN:
        return
    pairs: tuple[Any, ...] = tuple(trailing or ())
    if not any(pair[0] == _PUSHBACK for pair in pairs):
        context.set_trailing_metadata((*pairs, (_PUSHBACK, "-1")))


_UNKNOWN: Final = object()


def _ask(context: Any, method: str, unknown: Any = None) -> Any:
    """Return what a method of a context returns; `unknown` if other interceptors have replaced it by one without it."""
    try:
        return getattr(context, method)()
    except (AttributeError, NotImplementedError):
        return unknown
