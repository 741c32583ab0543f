"""The server side of the library, as ASGI middleware: what an inbound request brings along, and how it is refused.

    app.add_middleware(ResilienceMiddleware, trust=True)

It is pure ASGI 3 (https://asgi.readthedocs.io), for asyncio and trio, and works with Starlette, FastAPI and any other
ASGI framework and server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import anyio

from resilience._call.ambient import InboundRequest
from resilience._call.propagation import (
    ATTEMPT_COUNT,
    REMAINING_TIME,
    attempt_count,
    remaining_time,
    retry_after_header,
)
from resilience._outcome.failure import leaves
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience.errors import DeadlineExceededError, RejectedError

__all__ = ["ResilienceMiddleware"]

_Message: TypeAlias = Any  # a mapping; frameworks differ in its type
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[Any, _Receive, _Send], Awaitable[None]]
_Headers: TypeAlias = "list[tuple[bytes, bytes]]"

_REMAINING_TIME = REMAINING_TIME.encode()
_ATTEMPT_COUNT = ATTEMPT_COUNT.encode()
_READ_AHEAD = 2
"""How many messages of a request body are read before the app asks for them."""


class ResilienceMiddleware:
    """ASGI middleware that obeys the caller's deadline and attempts, and answers for rejections and deadlines.

    Args:
        app: the ASGI 3 application.
        trust: whether to believe two headers of Envoy in requests, which anyone can send: only behind a proxy that
            sets or removes them, or where all callers are your own. `x-envoy-expected-rq-timeout-ms`, the milliseconds
            that the caller will still wait, becomes the ambient deadline. `x-envoy-attempt-count` above 1 means that
            the request is a retry: a Retry in the handler makes one attempt, unless it is `nested=True`. Ignored are
            values that are not ASCII digits, headers that are sent more than once, times of more than a day, and
            attempt numbers that are not from 1 to 9,999.
        min_remaining: the seconds, >= 0, that a request must have left to be handled. With less, or with none left, it
            gets a response 504 and the app is not called. It has no effect without `trust`.
        cancel_on_disconnect: whether to cancel the app if the client disconnects before the response is complete. For
            this, up to 2 messages of the request body are read before the app asks for them, and a task is started for
            each request. Functions that run in a worker thread are not interrupted.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    If the app raises a RejectedError before it has started the response, the client gets a response 503 with
    `x-should-retry: false`, and with `Retry-After` (RFC 9110, section 10.2.3) in whole seconds, rounded up, if the
    error has a `retry_after`. If it raises a DeadlineExceededError, the client gets a response 504, also with
    `x-should-retry: false`. A group of nothing but these errors counts as well: as a deadline if one of them is. All
    other exceptions are raised on, and so are these if the response has started.

    The deadline and the attempt number hold until the response is complete, so not for background tasks that run after
    it. Only HTTP requests are handled: websocket and lifespan scopes pass through unchanged.
    """

    def __init__(
        self,
        app: _App,
        *,
        trust: bool = False,
        min_remaining: float = 0.0,
        cancel_on_disconnect: bool = False,
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be an ASGI application, not {app!r}")
        self.app = app
        self._trust = validation.flag("trust", trust)
        self._min_remaining = validation.number("min_remaining", min_remaining)
        self._cancel_on_disconnect = validation.flag("cancel_on_disconnect", cancel_on_disconnect)

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        """Handle one connection, as ASGI 3 defines it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds, attempt = _inbound(scope["headers"]) if self._trust else (None, 1)
        if seconds is not None and (seconds == 0 or seconds < self._min_remaining):
            await _respond(send, 504, b"too little time is left for this request\n")
            return
        response = _Response(send)
        if seconds is not None or attempt > 1:
            deadline = FOREVER if seconds is None else clock.monotonic() + seconds
            response.request = InboundRequest.begin(deadline, attempt)
        try:
            if self._cancel_on_disconnect:
                await _run_until_disconnect(self.app, scope, receive, response)
            else:
                await self.app(scope, receive, response.send)
        except Exception as error:
            errors = list(leaves(error))
            if response.started or not all(isinstance(one, RejectedError | DeadlineExceededError) for one in errors):
                raise
            if any(isinstance(one, DeadlineExceededError) for one in errors):
                await _respond(send, 504, b"the deadline of this request has passed\n")
            else:
                await _respond(send, 503, b"a dependency of this service is unavailable\n", _retry_after(errors))
        finally:
            response.end()


def _inbound(headers: Iterable[tuple[bytes, bytes]]) -> tuple[float | None, int]:
    """Return the seconds that remain for a request, None if unknown, and which attempt it is, 1 if unknown."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (_REMAINING_TIME, _ATTEMPT_COUNT):
            found[name] = b"" if name in found else value  # sent twice: it is unknown which of them is meant
    seconds = remaining_time(found.get(_REMAINING_TIME, b""))
    return seconds, attempt_count(found.get(_ATTEMPT_COUNT, b"")) or 1


def _retry_after(errors: Iterable[BaseException]) -> _Headers:
    """Return the header with the longest `retry_after` of rejections that can be said; none if there is none."""
    hints = [one.retry_after for one in errors if isinstance(one, RejectedError) and one.retry_after is not None]
    value = retry_after_header(max((hint for hint in hints if retry_after_header(hint)), default=None))
    return [] if value is None else [(b"retry-after", value.encode())]


async def _respond(send: _Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a response of plain text, which says that the request should not be repeated."""
    usual = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"x-should-retry", b"false"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*usual, *headers]})
    await send({"type": "http.response.body", "body": body})


class _Response:
    """The response that the app sends.

    Attributes:
        started: whether its head was sent.
        complete: whether all of its body was sent.
        request: what holds in the context until then; None if the request has brought nothing along.
    """

    __slots__ = ("_send", "complete", "request", "started")

    def __init__(self, send: _Send) -> None:
        self._send = send
        self.started = False
        self.complete = False
        self.request: InboundRequest | None = None

    async def send(self, message: _Message) -> None:
        """Send a message of the app."""
        kind = message["type"]
        if kind == "http.response.start":
            self.started = True
        elif kind == "http.response.pathsend" or (
            kind in ("http.response.body", "http.response.zerocopysend") and not message.get("more_body", False)
        ):
            # Before it is sent: servers report a disconnect to the app as soon as the response is complete.
            self.complete = True
            self.end()
        await self._send(message)

    def end(self) -> None:
        """Make void what the request has brought along."""
        if self.request is not None:
            self.request.end()


class _Inbox:
    """The messages of a request, read before the app asks for them, so that a disconnect is noticed while it works."""

    def __init__(self, receive: _Receive) -> None:
        self._receive = receive
        self._incoming, self._messages = anyio.create_memory_object_stream[_Message](_READ_AHEAD)
        self._error: Exception | None = None

    async def read(self) -> bool:
        """Read until the client disconnects, and return True; return False if the server fails to receive."""
        with self._incoming:
            try:
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        return True
                    await self._incoming.send(message)
            except Exception as error:
                self._error = error
                return False

    async def receive(self) -> _Message:
        """Return the next message to the app; after a disconnect, that message each time."""
        try:
            return await self._messages.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            if self._error is not None:
                raise self._error from None
            return {"type": "http.disconnect"}

    def close(self) -> None:
        """Stop reading."""
        self._messages.close()
        self._incoming.close()


async def _run_until_disconnect(app: _App, scope: Any, receive: _Receive, response: _Response) -> None:
    """Run the app in this task, and cancel it if the client disconnects before the response is complete."""
    inbox = _Inbox(receive)

    async def watch() -> None:
        if await inbox.read() and not response.complete:
            tasks.cancel_scope.cancel()

    raised: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            try:
                await app(scope, inbox.receive, response.send)
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # the task group would wrap it
                raised = error
            tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised
    finally:
        raised = None  # its traceback refers to this frame
        inbox.close()
