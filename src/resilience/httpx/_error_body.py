"""Reads the JSON body of an error response for the hints in it, and puts it back for the caller.

The body of such a response counts as part of its head: it is read within the time of the attempt. The bytes are kept as
they were sent, so that the caller gets the same body, whole or not.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from resilience import _runtime
from resilience._outcome.problem_bodies import HINTS, MOST_BYTES, hints_in_body, may_have_hints
from resilience._util.clock import FOREVER, TIMED_OUT, clock
from resilience._util.locks import run_in_thread
from resilience.httpx._deadline import Timeouts
from resilience.httpx._modules import httpx_module_of

PATIENCE: Final = 5.0
"""For how many seconds the body is waited for where there is no deadline."""
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
"""The argument of zlib for data with the header of either."""


class ReadAhead:
    """A body of which a part has been read, for a plain client.

    Args:
        chunks: what has been read.
        rest: the iterator of the rest; None if there is none.
        stream: the body.
        error: what was raised where there should have been a rest.
    """

    def __init__(self, chunks: list[bytes], rest: Any, stream: Any, error: Exception | None) -> None:
        self._chunks = chunks
        self._rest = rest
        self._stream = stream
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        """Yield what was read, and then the rest, or raise what came in place of it."""
        try:
            yield from self._chunks
            if self._error is not None:
                raise self._error
            if self._rest is not None:
                yield from self._rest
        except GeneratorExit:  # it was dropped, perhaps by a collection that has interrupted the pool
            run_in_thread(self.close)
            raise

    def close(self) -> None:
        """Close the body."""
        self._stream.close()


class AsyncReadAhead(ReadAhead):
    """A body of which a part has been read, for an async client."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what was read, and then the rest, or raise what came in place of it."""
        for chunk in self._chunks:
            yield chunk
        if self._error is not None:
            raise self._error
        if self._rest is not None:
            async for chunk in self._rest:
                yield chunk

    async def aclose(self) -> None:
        """Close the body, and the iterator of the rest."""
        await self._stream.aclose()
        if hasattr(self._rest, "aclose"):
            with contextlib.suppress(RuntimeError):  # another task reads it, which ends now
                await self._rest.aclose()


def read_hints(response: Any, timeouts: Timeouts) -> None:
    """Set the extension HINTS of an error response whose body may have hints, after its body has been read.

    Args:
        response: the response.
        timeouts: the timeouts of the attempt.

    Raises:
        httpx.ReadTimeout: the deadline of the attempt has passed.
    """
    if not _is_worth_reading(response):
        return
    stream, chunks, size = response.stream, list[bytes](), 0
    rest: Any = iter(stream)
    error: Exception | None = None
    is_unbounded = timeouts.left == FOREVER
    if is_unbounded:
        timeouts.set_deadline(clock.monotonic() + PATIENCE)
    try:
        for chunk in rest:
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                break
        else:
            rest = None
    except Exception as broken:
        if timeouts.left <= 0 and not is_unbounded:
            raise
        error = broken.with_traceback(None)  # its frames refer to the response
    finally:
        if is_unbounded:
            timeouts.set_deadline(FOREVER)
    response.stream = httpx_module_of(response).derived(ReadAhead, "SyncByteStream")(chunks, rest, stream, error)
    if rest is None:
        _set_hints(response, b"".join(chunks))


async def aread_hints(response: Any, deadline: float) -> None:
    """Do as `read_hints`, for async clients, whose attempts are cut at their deadline by other means.

    Args:
        response: the response.
        deadline: the deadline of the attempt.
    """
    if not _is_worth_reading(response):
        return
    stream, chunks = response.stream, list[bytes]()
    rest: Any = aiter(stream)
    error: Exception | None = None

    async def read() -> bool:
        """Return whether all of it was read."""
        size = 0
        async for chunk in rest:
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                return False
        return True

    module = httpx_module_of(response)
    try:
        reading = read()
        if deadline == FOREVER:
            ended = await _runtime.await_until(clock.monotonic() + PATIENCE, reading)
            if ended is TIMED_OUT:
                error = module.module.ReadTimeout(f"the body of the error did not come within {PATIENCE:g} s")
        else:
            ended = await reading
        if ended is True:
            rest = None
    except Exception as broken:
        error = broken.with_traceback(None)  # its frames refer to the response
    response.stream = module.derived(AsyncReadAhead, "AsyncByteStream")(chunks, rest, stream, error)
    if rest is None:
        _set_hints(response, b"".join(chunks))


def _is_worth_reading(response: Any) -> bool:
    """Return whether the body of a response is still to be read, and may have hints."""
    return (
        not response.is_closed
        and may_have_hints(response.headers.get("content-type", ""))
        and _coding_of(response) in ("", "identity", "gzip", "deflate")
    )


def _coding_of(response: Any) -> str:
    """Return the Content-Encoding of a response, in lower case (RFC 9110 8.4.1)."""
    coding: str = response.headers.get("content-encoding", "")
    return coding.strip().lower()


def _set_hints(response: Any, sent: bytes) -> None:
    """Set the extension of a response by its body, as it was sent."""
    body = sent
    if _coding_of(response) in ("gzip", "deflate"):
        try:
            body = _unpacked(sent, _GZIP_OR_ZLIB)
        except zlib.error:
            try:
                body = _unpacked(sent, -zlib.MAX_WBITS)  # servers also send "deflate" without the header of zlib
            except zlib.error:
                return
    response.extensions[HINTS] = hints_in_body(response.headers["content-type"], body)


def _unpacked(sent: bytes, form: int) -> bytes:
    """Return what was packed, but not much more than MOST_BYTES of it."""
    return zlib.decompressobj(form).decompress(sent, MOST_BYTES + 1)
