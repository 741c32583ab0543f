"""What becomes of a failed response once another attempt is decided on: its connection is free before the wait."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from resilience._util.clock import clock
from resilience.httpx._body import DRAIN_BYTES, DRAIN_SECONDS, AsyncBody, Body
from resilience.httpx._call import HttpCall
from resilience.httpx._modules import httpx_module_of

DISCARDED: Final = "resilience_body"
"""The extension of a response that says "discarded" where the body was, and is not any more."""


def release_responses(call: HttpCall) -> None:
    """Read what is small, within a bound, so that its connection can be used again; close the rest."""
    for response in list(call.opened):
        if not response.is_closed:
            body = response.stream
            if isinstance(body, Body) and _is_worth_reading(response, call) and not _is_shared(response):
                _replace(response, body.drain(_until(call)))
            else:
                with contextlib.suppress(Exception):
                    body.close()
                _replace(response, None)
        call.settled(response)


async def arelease_responses(call: HttpCall) -> None:
    """Read what is small, within a bound, so that its connection can be used again; close the rest."""
    for response in list(call.opened):
        if not response.is_closed:
            body = response.stream
            if isinstance(body, AsyncBody) and _is_worth_reading(response, call):
                _replace(response, await body.drain(_until(call)))
            else:
                with contextlib.suppress(Exception):
                    await body.aclose()
                _replace(response, None)
        call.settled(response)


def _until(call: HttpCall) -> float:
    return min(clock.monotonic() + DRAIN_SECONDS, call.deadline)


def _is_worth_reading(response: Any, call: HttpCall) -> bool:
    """Return whether the body may be small: it is not known to be large."""
    length = response.headers.get("content-length", "")
    known = length.isascii() and length.isdigit()
    return call.request.method == "HEAD" or not known or (len(length) < 8 and int(length) <= DRAIN_BYTES)


def _is_shared(response: Any) -> bool:
    """Return whether others are on its connection: a timeout of ours would break it for them."""
    version: object = response.extensions.get("http_version")
    return version == b"HTTP/2"


def _replace(response: Any, read: bytes | None) -> None:
    """Put in what was read. What was not is gone; if no attempt follows after all, the response comes out without."""
    response.stream = httpx_module_of(response).module.ByteStream(read or b"")
    if read is None:
        response.extensions[DISCARDED] = "discarded"
