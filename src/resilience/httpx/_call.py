"""One HTTP call as the policies see it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from resilience._call.call import CallOptions
from resilience._call.running_call import RunningCall
from resilience.httpx._modules import is_a

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 9.2.2."""


class HttpCall(RunningCall):
    """The call of one request.

    Args:
        binding: what is known about the calls of the transport.
        function: what makes an attempt; it gets this call.
        request: what is sent.
        let_go: frees what the responses in `opened` hold; for awaited calls it is a coroutine function.
        epoch: how often the transport had been closed when the call came in.
    """

    __slots__ = ("_known", "_queued", "_release", "epoch", "opened", "release_attempt", "request")

    cancel_via_anyio = True
    single_attempt = True

    def __init__(
        self,
        binding: CallOptions,
        function: Callable[[HttpCall], Any],
        request: Any,
        let_go: Callable[[HttpCall], Any],
        epoch: int = 0,
    ) -> None:
        super().__init__(binding, function, (self,), {})
        self.request = request
        self.opened: list[Any] = []
        """The responses that somebody has to close."""
        self._known: dict[int, bool] = {}
        self._queued = False
        self._release = let_go
        self.epoch = epoch
        self.release_attempt: Callable[[], Any] | None = partial(let_go, self)

    @property
    def operation(self) -> str:
        """The method, where nobody gave a name."""
        return self.options.operation or self.request.method

    @property
    def target(self) -> str | None:
        """The host, where nobody gave a name."""
        return self.options.target or self.request.url.host or None

    @property
    def idempotent(self) -> bool:
        """What the binding says, or else the method (RFC 9110 9.2.2) or an Idempotency-Key."""
        if self.options.idempotent is not None:
            return self.options.idempotent
        return self.request.method in IDEMPOTENT or "idempotency-key" in self.request.headers

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent again, or has not been touched yet."""
        return _replayable(self.request.stream)

    @property
    def queued(self) -> bool:
        """Whether it still waits for a connection of the pool."""
        return self._queued

    @property
    def unsent(self) -> bool | None:
        """Whether this attempt surely sent nothing; None where the transport does not know better than the failure."""
        return self._known.get(self.attempt)

    def learn(self, unsent: bool) -> None:
        """Note whether this attempt surely sent nothing."""
        self._known[self.attempt] = unsent

    def over(self) -> None:
        """Let go of itself: no attempt follows."""
        self.args = ()
        self.release_attempt = None

    def settled(self, response: Any) -> None:
        """Nobody has to close a response any more."""
        with contextlib.suppress(ValueError):  # a thread that was left behind has been here
            self.opened.remove(response)

    def set_queued(self, queued: bool) -> None:
        """Note whether it waits for a connection of the pool."""
        self._queued = queued

    def caused_by_deadline(self, error: Exception) -> bool:
        """A timeout of httpx that comes at our deadline comes because of it."""
        return super().caused_by_deadline(error) or is_a(error, "TimeoutException")

    def copy(self) -> HttpCall:
        """Return a copy, for a thread."""
        other = HttpCall(self.options, self.function, self.request, self._release, self.epoch)
        self.copy_state_to(other)
        other.opened = self.opened
        other._known = self._known
        return other

    def dispose(self, result: Any) -> None:
        """Close a response that came when its thread had been left behind."""
        close_quietly(result)

    def taken(self) -> Iterator[Any]:
        """Take out the responses that somebody has to close, one by one; a thread that was left behind may, too."""
        with contextlib.suppress(IndexError):
            while True:
                yield self.opened.pop()

    def close_all(self, but: Any = None) -> None:
        """Close the responses that nobody gets."""
        for response in self.taken():
            if response is not but:
                close_quietly(response)


def close_quietly(response: Any) -> None:
    """Close a response that nobody wants; how its connection fares is nobody's business."""
    with contextlib.suppress(Exception):
        response.close()


def _replayable(stream: Any) -> bool:
    if is_a(stream, "ByteStream"):
        return True
    facts: dict[str, Any] = getattr(stream, "__dict__", {})
    if facts.get("_is_stream_consumed") is False:
        return True  # nothing has been read from it
    if isinstance(facts.get("fields"), list):
        return all(_rewinds(getattr(field, "file", b"")) for field in facts["fields"])
    return type(facts.get("_stream")) in (list, tuple)


def _rewinds(part: Any) -> bool:
    """Return whether a part of a multipart body comes out whole again; httpx rewinds files that can be."""
    if isinstance(part, str | bytes):
        return True
    try:
        return bool(part.seekable())
    except Exception:
        return False


def copied(request: Any, extensions: dict[str, Any]) -> Any:
    """Return the same request with extensions of its own: the caller may send the original again."""
    kind: Any = request.__class__
    other: Any = kind.__new__(kind)
    other.__dict__.update(request.__dict__)
    other.extensions = extensions
    return other
