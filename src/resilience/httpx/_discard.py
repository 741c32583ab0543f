"""Discards failed responses before the wait for another attempt, so that their connections are free."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from resilience._util.clock import clock
from resilience.httpx._async_body import AsyncBody
from resilience.httpx._body import DRAIN_BYTES, DRAIN_SECONDS, Body
from resilience.httpx._call import HttpCall
from resilience.httpx._modules import httpx_module_of
from resilience.httpx._request_body import is_bytes

DISCARDED: Final = "resilience_body"
"""The extension of a response whose body was discarded; its value is "discarded"."""


def release_responses(call: HttpCall) -> None:
    """Discard the open responses of a call, those aside whose body is in memory.

    A small body is read within bounds of size and time, so that its connection can be used again. Others are closed.
    """
    for response in list(call.opened):
        if not (response.is_closed or is_bytes(response.stream)):
            body = response.stream
            if isinstance(body, Body) and _may_be_small(response, call) and not _is_shared(response):
                _set_body(response, body.drain(_drain_deadline(call)))
            else:
                with contextlib.suppress(Exception):
                    body.close()
                _set_body(response, None)
        call.remove(response)


async def arelease_responses(call: HttpCall) -> None:
    """Discard the open responses of a call, those aside whose body is in memory.

    A small body is read within bounds of size and time, so that its connection can be used again. Others are closed.
    """
    for response in list(call.opened):
        if not (response.is_closed or is_bytes(response.stream)):
            body = response.stream
            if isinstance(body, AsyncBody) and _may_be_small(response, call):
                _set_body(response, await body.drain(_drain_deadline(call)))
            else:
                with contextlib.suppress(Exception):
                    await body.aclose()
                _set_body(response, None)
        call.remove(response)


def _drain_deadline(call: HttpCall) -> float:
    """Return the time until which a body may be read."""
    return min(clock.monotonic() + DRAIN_SECONDS, call.deadline)


def _may_be_small(response: Any, call: HttpCall) -> bool:
    """Return whether a body may be small: it has no Content-Length, or one of at most DRAIN_BYTES."""
    length = response.headers.get("content-length", "")
    known = length.isascii() and length.isdigit()
    return call.request.method == "HEAD" or not known or (len(length) < 8 and int(length) <= DRAIN_BYTES)


def _is_shared(response: Any) -> bool:
    """Return whether the connection may have other responses, for which a timeout while reading would break it."""
    version: object = response.extensions.get("http_version")
    return version == b"HTTP/2"


def _set_body(response: Any, read: bytes | None) -> None:
    """Replace the body by what was read of it; None: it was closed unread.

    If no attempt follows after all, the response is returned with an empty body and the extension `DISCARDED`.
    """
    response.stream = httpx_module_of(response).module.ByteStream(read or b"")
    if read is None:
        response.extensions[DISCARDED] = "discarded"
