"""The call of an HTTP request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from resilience._call.ambient import inbound_attempt
from resilience._call.call import CallOptions
from resilience._call.propagation import headers_for
from resilience._call.running_call import UNPHASED, DeadlineSource, PhasedCall, RunningCall
from resilience._outcome.ending import OK
from resilience._util.clock import FOREVER, clock
from resilience.events import TimeoutScope
from resilience.httpx._modules import is_a
from resilience.httpx._options import KEY, NONE, UNTIL, options_of_request
from resilience.httpx._request_body import is_replayable, is_shareable
from resilience.httpx._settings import DEFAULTS, TransportSettings

IDEMPOTENT: Final = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY", "PROPFIND", "REPORT", "SEARCH"}
)
"""The idempotent methods of RFC 9110 9.2.2, RFC 10008 (QUERY), RFC 4918, RFC 3253 and RFC 5323 (WebDAV)."""
EVENT_STREAM: Final = "text/event-stream"
"""The type of server-sent events, whose stream may last for ever."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The safe methods of RFC 9110 9.2.1."""
NO_KWARGS: Final[dict[str, Any]] = {}
"""The keyword arguments of all attempts, which nothing changes."""
UNBOUNDED: Final = DeadlineSource(TimeoutScope.CALL)
"""The source of the deadline of a body that may last for ever."""


class HttpCall(PhasedCall):
    """The call of one request.

    Args:
        options: the options of the calls of the transport.
        function: makes an attempt; it is called with this call.
        request: the request.
        release: discards the responses in `opened`; for awaited calls it is a coroutine function.
        settings: the settings of the transport.
        times_closed: how often the transport had been closed when the call began.

    Raises:
        TypeError: the request has options that were not made by `resilience.httpx.options`.
    """

    __slots__ = (
        "_own_deadline", "_settings", "_unsent", "_was_copied", "good", "is_judged", "key", "opened", "own", "queued",
        "release_attempt", "request", "times_closed",
    )  # fmt: skip

    respects_shields = True
    single_attempt = True

    def __init__(
        self,
        options: CallOptions,
        function: Callable[[HttpCall], Any],
        request: Any,
        release: Callable[[HttpCall], Any],
        settings: TransportSettings = DEFAULTS,
        times_closed: int = 0,
    ) -> None:
        RunningCall.begin(self, options, function, (self,), NO_KWARGS)
        self.phases = self.shadow_phases = UNPHASED
        self.request = request
        self.good = OK
        """The ending of an attempt that has returned a good response, with what the server says about its quota."""
        self.own = own = NONE if KEY not in request.extensions else options_of_request(request)
        """The options of the request."""
        self._own_deadline = FOREVER if own.timeout is None else self._bound_by(own.timeout)
        self._settings = settings
        self.key: str | None = None if settings.idempotency_key is None else settings.idempotency_key.key_for(request)
        """The idempotency key that all attempts send; None for none, or one of the caller's own."""
        self.opened: list[Any] = []
        """The responses that are still to be closed."""
        self._unsent: dict[int, bool] = {}
        self._was_copied = False
        self.is_judged = False
        """Whether the latest attempt has returned a good response."""
        self.queued = False
        """Whether the request still waits for a connection of the pool."""
        self.times_closed = times_closed
        self.release_attempt: Callable[[Any], Any] | None = release

    @property
    def operation(self) -> str:
        """The operation of the request's options, or given by `bind`; otherwise the method."""
        return self.own.operation or self.options.operation or self.request.method

    @property
    def target(self) -> str | None:
        """The target given by `bind`, otherwise the host of the URL."""
        return self.options.target or self.request.url.host or None

    @property
    def idempotent(self) -> bool:
        """What the request's options or `bind` say; otherwise whether its method, a key or a pattern makes it so."""
        said = self.options.idempotent if self.own.idempotent is None else self.own.idempotent
        request = self.request
        if said is not None or request.method in IDEMPOTENT:
            return said is not False
        settings = self._settings
        header = "idempotency-key" if settings.idempotency_key is None else settings.idempotency_key.header
        if self.key is not None or request.headers.get(header):
            return True
        return bool(settings.idempotent) and settings.idempotent.match(request.method, request.url.path)

    @property
    def hedgeable(self) -> bool:
        """What the request's options or `bind` say; otherwise whether the method is safe (RFC 9110 9.2.1).

        In any case two attempts must be able to read the body at the same time.
        """
        said = self.options.idempotent if self.own.idempotent is None else self.own.idempotent
        return (self.request.method in SAFE if said is None else said) and is_shareable(self.request.stream)

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent again, or has not been read yet.

        Once an attempt had a copy of the call, its thread may have been abandoned, and still read from a file.
        """
        return is_shareable(self.request.stream) if self._was_copied else is_replayable(self.request.stream)

    @property
    def unsent(self) -> bool | None:
        """Whether this attempt certainly sent nothing; None where the transport leaves that to the failure."""
        return self._unsent.get(self.attempt)

    def set_unsent(self, unsent: bool) -> None:
        """Set whether this attempt certainly sent nothing."""
        self._unsent[self.attempt] = unsent

    def settles_at_head(self, response: Any) -> bool:
        """Return whether the call ends with the head of a response, whose body may last for ever."""
        settle = self.own.settle or self._settings.settle
        kind: str = response.headers.get("content-type", "")
        return settle == "headers" or kind.partition(";")[0].strip().lower() == EVENT_STREAM

    def release_body(self) -> None:
        """Let the body of the response last as long as it will, or as the request's own options let it."""
        self.total_deadline, self.total_deadline_source = self._own_deadline, UNBOUNDED

    def headers_to_add(self) -> dict[str, str]:
        """Return the headers that this attempt sends in addition to those of the request."""
        settings = self._settings
        added: dict[str, str] = {}
        if self.key is not None and settings.idempotency_key is not None:
            added[settings.idempotency_key.header] = self.key
        if settings.propagate_to and settings.propagate_to.match(self.request.url):
            attempt = max(self.attempt, inbound_attempt(self.ambient))  # a part of a retry is a retry
            added |= headers_for(self.deadline, attempt, clock.monotonic())
        return added

    def _bound_by(self, seconds: float) -> float:
        """Bound the request, its body and its redirects, and return the deadline."""
        now, request = clock.monotonic(), self.request
        deadline, first = request.extensions.get(UNTIL, (0.0, id(request)))
        if deadline <= now and first == id(request):  # it is new, or sent once more after its time was over
            deadline = now + seconds
            request.extensions[UNTIL] = deadline, first
        if deadline < self.deadline:
            self.deadline = self.total_deadline = deadline
            self.deadline_source = self.total_deadline_source = DeadlineSource(TimeoutScope.CALL, None, None, seconds)
        at: float = deadline
        return at

    def end(self) -> None:
        """Drop the references to what makes attempts, since none follows: the body of a response refers to the call."""
        self.args = ()
        self.function = _ended

    def remove(self, response: Any) -> None:
        """Remove a response from `opened`."""
        with contextlib.suppress(ValueError):  # an abandoned thread has removed it
            self.opened.remove(response)

    def caused_by_deadline(self, error: Exception) -> bool:
        """Return whether an exception that came at the deadline or later was caused by it: a timeout of httpx was."""
        return super().caused_by_deadline(error) or is_a(error, "TimeoutException")

    def copy(self) -> HttpCall:
        """Return a copy, for a thread that may be abandoned. The copies share `opened`."""
        self._was_copied = True
        release: Any = self.release_attempt
        other = HttpCall(self.options, self.function, self.request, release, DEFAULTS, self.times_closed)
        self.copy_state_to(other)
        other._settings, other.key = self._settings, self.key
        other.opened = self.opened
        other._unsent = self._unsent
        return other

    def dispose(self, result: Any) -> None:
        """Close a response that arrived after its thread was abandoned."""
        close_quietly(result)

    async def adispose(self, result: Any) -> None:
        """Close the response of an attempt that has lost a race."""
        with contextlib.suppress(Exception):
            await result.aclose()

    def pop_others(self) -> Iterator[Any]:
        """Remove all responses from `opened`, and yield them.

        An abandoned thread may do so at the same time.
        """
        opened = self.opened
        while opened:
            try:
                yield opened.pop()
            except IndexError:
                return


def _ended(call: HttpCall) -> NoReturn:
    """The function of a call that has ended."""
    raise RuntimeError(f"{call.operation} has ended")


def close_quietly(response: Any) -> None:
    """Close a response that is not used, and ignore errors of its connection."""
    with contextlib.suppress(Exception):
        response.close()


def copied(request: Any, extensions: dict[str, Any], headers: dict[str, str] | None) -> Any:
    """Return a copy of a request with other extensions, and with further headers.

    The original stays unchanged: its caller may send it again.
    """
    kind: Any = request.__class__
    other: Any = kind.__new__(kind)
    for name, value in request.__dict__.items():  # to assign a whole `__dict__` makes each use of it slower
        setattr(other, name, value)
    other.extensions = extensions
    if headers:
        other.headers = request.headers.copy()
        other.headers.update(headers)
    return other


def with_trace(request: Any, trace: Any) -> Any:
    """Return a copy of a request with a `trace` extension."""
    return copied(request, {**request.extensions, "trace": trace}, None)


def copied_response(response: Any) -> Any:
    """Return a copy of a response that has its body, and headers and extensions of its own."""
    kind: Any = response.__class__
    other: Any = kind.__new__(kind)
    other.__dict__.update(response.__dict__)
    other.headers = response.headers.copy()
    other.extensions = dict(response.extensions)
    return other
