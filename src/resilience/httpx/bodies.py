"""The bodies of responses: what the permits of a call follow, and what is read of a response that nobody may want."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from resilience import runtime, timing
from resilience.clock import FOREVER, TIME_IS_UP, ambient
from resilience.ending import OK, Ending
from resilience.errors import DeadlineExceededError
from resilience.httpx.dialect import Dialect, dialect_of
from resilience.httpx.exchange import Clock, Exchange
from resilience.httpx.pool import Place
from resilience.settling import Deferred

SMALL: Final = 65_536
"""Bytes: a body of a known length up to this is read at once when its response may be discarded."""
PATIENCE: Final = 0.2
"""Seconds that this may take; one connection is not worth more."""


class Guarded:
    """What the bodies of both kinds have in common.

    Args:
        stream: the body as the transport gave it.
        call: whose body it is.
        started: when the attempt began.
        deferred: what ends with the body; None where nothing does.
    """

    def __init__(self, stream: Any, call: Exchange, started: float, deferred: Deferred | None) -> None:
        self._stream = stream
        self._call = call
        self._started = started
        self._deferred = deferred
        self._iterator: Any = None

    def _late(self) -> bool:
        return self._call.whole != FOREVER and ambient.monotonic() >= self._call.whole

    def _end(self, ending: Ending) -> None:
        if self._deferred is not None:
            self._deferred.end(ending)

    def _failed(self, error: BaseException) -> None:
        self._end(Ending(None, error, self._call.failures))

    def _cut(self, cause: Exception | None = None) -> Exception:
        """Return the error for a body that came too late, and end."""
        call = self._call
        call.limit = call.whose_whole
        error: DeadlineExceededError = timing.cut(call, self._started)
        error.__cause__ = cause
        self._failed(error)
        return dialect_of(call.request).translated(error, call.request)


class Body(Guarded):
    """A body that is read by a plain client. It ends once: exhausted, closed, failed, or dropped."""

    def __iter__(self) -> Iterator[bytes]:
        self._iterator = iter(self._stream)
        return self

    def __next__(self) -> bytes:
        if self._late():
            self._stream.close()
            raise self._cut()
        try:
            chunk: bytes = next(self._iterator)
        except StopIteration:
            self._end(OK)
            raise
        except Exception as error:
            if self._late() and self._call.overdue(error):
                raise self._cut(error) from error
            self._failed(error)
            raise
        except BaseException as error:
            self._failed(error)
            raise
        return chunk

    def close(self) -> None:
        """Close the body. Who closes it early has what they wanted."""
        try:
            self._stream.close()
        finally:
            self._end(OK)


class AsyncBody(Guarded):
    """A body that is read by an async client.

    Args:
        alone: whether httpcore reads it, from a connection that no other response is on.
        place: what it has in a pool that may lose it; None: nothing. For the rest see `Guarded`.
    """

    def __init__(
        self,
        stream: Any,
        call: Exchange,
        started: float,
        deferred: Deferred | None,
        alone: bool,
        place: Place | None,
    ) -> None:
        super().__init__(stream, call, started, deferred)
        self._alone = alone
        self._place = place
        if place is not None:
            place.taken(stream)

    def __aiter__(self) -> AsyncBody:
        self._iterator = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        whole = self._call.whole
        try:
            coming: Any = anext(self._iterator)
            chunk: Any = await (coming if whole == FOREVER else runtime.by(whole, coming))
        except StopAsyncIteration:
            self._iterator = None
            self._end(OK)
            raise
        except Exception as error:
            await self._mend(error)
            if self._late() and self._call.overdue(error):
                raise self._cut(error) from error
            self._failed(error)
            raise
        except BaseException as error:
            self._failed(error)
            await self._mend(error)
            raise
        if chunk is TIME_IS_UP or self._late():
            late = self._cut()
            await self.aclose()
            raise late
        data: bytes = chunk
        return data

    async def aclose(self) -> None:
        """Close the body. Who closes it early has what they wanted."""
        try:
            await self._close()
        except BaseException as error:
            await self._mend(error)
            raise
        finally:
            self._end(OK)

    async def _mend(self, error: BaseException) -> None:
        if self._place is not None:
            await self._place.mend(error)

    async def _close(self) -> None:
        await self._stream.aclose()
        iterator, self._iterator = self._iterator, None
        if iterator is None:
            return
        # Who leaves a generator to the garbage collector is warned by trio. Those of httpcore, one within the other,
        # end by the error that reading from a closed connection is. With HTTP/2 the connection goes on, and reading
        # would wait for what never comes.
        with contextlib.suppress(Exception):
            if self._alone:
                await runtime.by(ambient.monotonic() + PATIENCE, _exhaust(iterator))
            elif hasattr(iterator, "aclose"):
                await iterator.aclose()


async def _exhaust(iterator: Any) -> None:
    async for _ in iterator:
        pass


def is_alone(response: Any) -> bool:
    """Return whether a response has its connection for itself: with HTTP/1 it has, with HTTP/2 it has not."""
    version = response.extensions.get("http_version")
    return isinstance(version, bytes) and version.startswith(b"HTTP/1")


class Resumed:
    """A body of which a part has been read: that part, then the rest, or the error that it has met."""

    def __init__(self, read: deque[bytes], stream: Any, iterator: Any, error: Exception | None) -> None:
        self._read = read
        self._stream = stream
        self._iterator = iterator
        self._error = error

    def _next(self) -> bytes | None:
        if self._read:
            return self._read.popleft()
        if self._error is not None:
            raise self._error
        return None

    def __iter__(self) -> Resumed:
        return self

    def __next__(self) -> bytes:
        chunk = self._next()
        rest: bytes = next(self._iterator) if chunk is None else chunk
        return rest

    def close(self) -> None:
        """Close the rest."""
        self._stream.close()

    def __aiter__(self) -> Resumed:
        return self

    async def __anext__(self) -> bytes:
        chunk = self._next()
        rest: bytes = await anext(self._iterator) if chunk is None else chunk
        return rest

    async def aclose(self) -> None:
        """Close the rest."""
        await self._stream.aclose()


class _Reading:
    """Reads a small body ahead, so that its connection is free again while a retry waits.

    Nothing is lost: whoever gets the response in the end finds the body as it came, its error included.
    """

    def __init__(self, response: Any, clock: Clock, base: str) -> None:
        self._response = response
        self._dialect: Dialect = dialect_of(response)
        self._base = base
        self.stream: Any = response.stream
        self.read: deque[bytes] = deque()
        self._size = 0
        self.until = ambient.monotonic() + PATIENCE
        clock.most = PATIENCE
        clock.clip(("read",))

    def enough(self, chunk: bytes) -> bool:
        """Keep what was read; True: stop here."""
        self.read.append(chunk)
        self._size += len(chunk)
        return self._size > SMALL or ambient.monotonic() >= self.until

    def whole(self) -> None:
        """All of it is there."""
        self._response.stream = self._dialect.module.ByteStream(b"".join(self.read))

    def too_slow(self) -> Exception:
        """Return what the reader of the rest meets."""
        error: Exception = self._dialect.module.ReadTimeout("the body of a failed response took too long")
        return error

    def part(self, iterator: Any, error: Exception | None) -> None:
        """There is more, or it broke."""
        make: Callable[..., Any] = self._dialect.derived(Resumed, self._base)
        error = None if error is None else error.with_traceback(None)
        self._response.stream = make(self.read, self.stream, iterator, error)


def is_small(response: Any) -> bool:
    """Return whether the body is known to be small."""
    length = response.headers.get("content-length", "")
    return length.isascii() and length.isdigit() and len(length) < 8 and int(length) <= SMALL


def read_ahead(response: Any, clock: Clock) -> bool:
    """Read a small body, within a bound; returns whether that was all, so that nobody has to close it."""
    reading = _Reading(response, clock, "SyncByteStream")
    iterator = iter(reading.stream)
    try:
        for chunk in iterator:
            if reading.enough(chunk):
                reading.part(iterator, None)
                return False
        reading.stream.close()
    except Exception as error:
        reading.part(iterator, error)
        return False
    else:
        reading.whole()
        return True
    finally:
        clock.most = FOREVER


async def read_ahead_async(response: Any, clock: Clock) -> bool:
    """Read a small body, within a bound; returns whether that was all, so that nobody has to close it."""
    reading = _Reading(response, clock, "AsyncByteStream")
    iterator = aiter(reading.stream)
    try:
        while True:
            try:
                chunk = await runtime.by(reading.until, anext(iterator))
            except StopAsyncIteration:
                break
            if chunk is TIME_IS_UP:
                await reading.stream.aclose()
                reading.part(iterator, reading.too_slow())
                return False
            if reading.enough(chunk):
                reading.part(iterator, None)
                return False
        await reading.stream.aclose()
    except Exception as error:
        reading.part(iterator, error)
        return False
    else:
        reading.whole()
        return True
    finally:
        clock.most = FOREVER
