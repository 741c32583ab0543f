"""A `trace` for requests that may use HTTP/2: it notes how far an attempt has come.

Over HTTP/1, the network notes that, see `_network`. The requests of an HTTP/2 connection share its writes: one writes
the frames of another, and an error of a write is that of all. So there httpcore has to tell, for the price of some ten
calls per request.
"""

from __future__ import annotations

from typing import Any, Final

from resilience.httpx._deadline import Timeouts

SENDING: Final = "send_request_headers.started"
"""The end of the name of the step with which sending begins."""


class Http2Trace:
    """The `trace` extension for a plain client.

    Args:
        timeouts: the timeouts of the attempt.
        module: httpx or httpx2.
        trace: the `trace` extension of the request, which is called as well; None for none.
    """

    def __init__(self, timeouts: Timeouts, module: Any, trace: Any) -> None:
        self._timeouts = timeouts
        self._module = module
        self._trace = trace

    def __call__(self, name: str, info: Any) -> None:
        """Handle an event of httpcore.

        Raises:
            ConnectTimeout: the deadline has passed, and nothing was sent. It is raised before the connection knows of
                the request, so that the others on it are not affected.
        """
        if is_sending(name, info) and self._timeouts.left <= 0:
            raise self._module.ConnectTimeout("the deadline passed before the request was sent")
        note_step(self._timeouts, name, info)
        if self._trace is not None:
            self._trace(name, info)


class AsyncHttp2Trace:
    """The `trace` extension for an async client; the arguments are those of Http2Trace."""

    def __init__(self, timeouts: Timeouts, trace: Any) -> None:
        self._timeouts = timeouts
        self._trace = trace

    async def __call__(self, name: str, info: Any) -> None:
        """Handle an event of httpcore."""
        note_step(self._timeouts, name, info)
        if self._trace is not None:
            await self._trace(name, info)


def is_sending(name: str, info: Any) -> bool:
    """Return whether an event is the start of sending, and not that of the request that opens a tunnel."""
    return name.endswith(SENDING) and getattr(info.get("request"), "method", b"") != b"CONNECT"


def note_step(timeouts: Timeouts, name: str, info: Any) -> None:
    """Note what an event says about how far the attempt has come."""
    timeouts.has_connection = True
    if is_sending(name, info):
        timeouts.has_sent = True
