"""The bodies of responses: what the permits of a call follow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from resilience import _runtime
from resilience._call import deadline_errors
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import OK, Ending
from resilience._util.clock import FOREVER, TIMED_OUT, clock
from resilience.httpx._call import HttpCall
from resilience.httpx._deadline import Timeouts
from resilience.httpx._modules import httpx_module_of
from resilience.httpx._pool_repair import PoolSlot

DRAIN_BYTES: Final = 65_536
"""Bytes: the body of a response that is discarded is read up to this."""
DRAIN_SECONDS: Final = 0.2
"""Seconds that reading what nobody wants may take; one connection is not worth more."""


class GuardedBody:
    """What the bodies of both kinds have in common.

    Args:
        stream: the body as the transport gave it.
        call: whose body it is.
        timeouts: of the attempt.
        started: when the attempt began.
        deferred: what ends with the body; None where nothing does.
    """

    def __init__(
        self, stream: Any, call: HttpCall, timeouts: Timeouts, started: float, deferred: DeferredSettlement | None
    ) -> None:
        self._stream = stream
        self._call = call
        self._timeouts = timeouts
        self._started = started
        self._deferred = deferred
        self._iterator: Any = None

    def _late(self) -> bool:
        return self._call.total_deadline != FOREVER and clock.monotonic() >= self._call.total_deadline

    def _end(self, ending: Ending) -> None:
        if self._deferred is not None:
            self._deferred.end(ending)

    def _failed(self, error: BaseException) -> None:
        self._end(Ending(None, error, self._call.failures))

    def _cut(self, cause: Exception | None = None) -> Exception:
        """Return the error for a body that came too late, and end."""
        call = self._call
        error = deadline_errors.cut_error(call, self._started, call.total_deadline_source)
        whose = str(error).partition(" passed while ")[0]
        ran = clock.monotonic() - self._started
        error.args = (f"{whose} passed while the body was read, {ran:.3g} s after {call.operation} began",)
        error.__cause__ = cause
        self._failed(error)
        return httpx_module_of(call.request).translated(error, call.request)


class Body(GuardedBody):
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
            if self._late() and self._call.caused_by_deadline(error):
                raise self._cut(error) from error
            self._failed(error)
            raise
        except BaseException as error:
            self._failed(error)
            raise
        return chunk

    def drain(self, until: float) -> bytes | None:
        """Close the body of a failed response; returns what it was, if it was small and came in time.

        Each silence may last until that time.
        """
        try:
            self._timeouts.set_deadline(until)
            read = bytearray()
            for chunk in self._stream:
                read += chunk
                if len(read) > DRAIN_BYTES or clock.monotonic() >= until:
                    return None
            return bytes(read)
        except Exception:
            return None
        finally:
            with contextlib.suppress(Exception):
                self._stream.close()

    def close(self) -> None:
        """Close the body. Who closes it early has what they wanted."""
        try:
            self._stream.close()
        finally:
            self._end(OK)


class AsyncBody(GuardedBody):
    """A body that is read by an async client.

    Args:
        alone: whether httpcore reads it, from a connection that no other response is on.
        place: what it has in a pool that may lose it; None: nothing. For the rest see `Guarded`.
    """

    def __init__(
        self,
        stream: Any,
        call: HttpCall,
        timeouts: Timeouts,
        started: float,
        deferred: DeferredSettlement | None,
        alone: bool,
        place: PoolSlot | None,
    ) -> None:
        super().__init__(stream, call, timeouts, started, deferred)
        self._alone = alone
        self._place = place
        if place is not None:
            place.taken(stream)

    def __aiter__(self) -> AsyncBody:
        self._iterator = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        whole = self._call.total_deadline
        try:
            coming: Any = anext(self._iterator)
            chunk: Any = await (coming if whole == FOREVER else _runtime.await_until(whole, coming))
        except StopAsyncIteration:
            self._iterator = None
            self._end(OK)
            raise
        except Exception as error:
            await self._repair_pool(error)
            if self._late() and self._call.caused_by_deadline(error):
                raise self._cut(error) from error
            self._failed(error)
            raise
        except BaseException as error:
            self._failed(error)
            await self._repair_pool(error)
            raise
        if chunk is TIMED_OUT or self._late():
            late = self._cut()
            await self.aclose()
            raise late
        data: bytes = chunk
        return data

    async def drain(self, until: float) -> bytes | None:
        """Close the body of a failed response; returns what it was, if it was small and came in time."""
        self._iterator = aiter(self._stream)
        read: Any = None
        try:
            read = await _runtime.await_until(until, _gather(self._iterator, until))
        except Exception as error:
            await self._repair_pool(error)
        except BaseException as error:
            await self._repair_pool(error)
            raise
        with contextlib.suppress(Exception):
            await self.aclose()
        return read if isinstance(read, bytes) else None

    async def aclose(self) -> None:
        """Close the body. Who closes it early has what they wanted."""
        try:
            await self._close()
        except BaseException as error:
            await self._repair_pool(error)
            raise
        finally:
            self._end(OK)

    async def _repair_pool(self, error: BaseException) -> None:
        if self._place is not None:
            await self._place.repair(error)

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
                await _runtime.await_until(clock.monotonic() + DRAIN_SECONDS, _exhaust(iterator))
            elif hasattr(iterator, "aclose"):
                await iterator.aclose()


async def _gather(iterator: Any, until: float) -> bytes | None:
    read = bytearray()
    async for chunk in iterator:
        read += chunk
        if len(read) > DRAIN_BYTES or clock.monotonic() >= until:
            return None
    return bytes(read)


async def _exhaust(iterator: Any) -> None:
    async for _ in iterator:
        pass


def is_alone(response: Any) -> bool:
    """Return whether a response has its connection for itself: with HTTP/1 it has, with HTTP/2 it has not."""
    version = response.extensions.get("http_version")
    return isinstance(version, bytes) and version.startswith(b"HTTP/1")
