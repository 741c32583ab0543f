"""The bodies of responses: the gates of a call are settled when its body ends."""

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
"""The number of bytes up to which the body of a discarded response is read."""
DRAIN_SECONDS: Final = 0.2
"""The seconds for which the body of a discarded response is read. To keep a connection is not worth more."""


class GuardedBody:
    """The base class of the bodies of plain and of async clients.

    Args:
        stream: the body from the inner transport.
        call: the call.
        timeouts: the timeouts of the attempt.
        started: the time at which the attempt began.
        deferred: the settlement that ends with the body; None if the call is settled already.
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

    def _is_late(self) -> bool:
        """Return whether the deadline of the whole call has passed."""
        return self._call.total_deadline != FOREVER and clock.monotonic() >= self._call.total_deadline

    def _end(self, ending: Ending) -> None:
        """Settle the call; only the first ending counts."""
        if self._deferred is not None:
            self._deferred.end(ending)

    def _fail(self, error: BaseException) -> None:
        """End the body with an error."""
        self._end(Ending(None, error, self._call.failures))

    def _end_late(self, cause: Exception | None = None) -> Exception:
        """End the body since its deadline has passed, and return the error to raise."""
        call = self._call
        error = deadline_errors.cut_error(call, self._started, call.total_deadline_source)
        deadline = str(error).partition(" passed while ")[0]
        elapsed = deadline_errors.seconds(clock.monotonic() - self._started)
        error.args = (f"{deadline} passed while the body was read, {elapsed} after {call.operation} began",)
        error.__cause__ = cause
        self._fail(error)
        return httpx_module_of(call.request).translated(error, call.request)


class Body(GuardedBody):
    """A body for a plain client. It ends once: when it is exhausted, closed, fails, or is garbage-collected."""

    def __iter__(self) -> Iterator[bytes]:
        self._iterator = iter(self._stream)
        return self

    def __next__(self) -> bytes:
        if self._is_late():
            self._stream.close()
            raise self._end_late()
        try:
            chunk: bytes = next(self._iterator)
        except StopIteration:
            self._end(OK)
            raise
        except Exception as error:
            if self._is_late() and self._call.caused_by_deadline(error):
                raise self._end_late(error) from error
            self._fail(error)
            raise
        except BaseException as error:
            self._fail(error)
            raise
        return chunk

    def drain(self, until: float) -> bytes | None:
        """Close the body of a failed response.

        Args:
            until: the time until which it is read; also the deadline of each read.

        Returns:
            What was read, if it is the whole body; None if the body was too large or too slow.
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
        """Close the body. To close it before its end is a success: the caller has read what it needs."""
        try:
            self._stream.close()
        finally:
            self._end(OK)


class AsyncBody(GuardedBody):
    """A body for an async client.

    Args:
        stream: the body from the inner transport.
        call: the call.
        timeouts: the timeouts of the attempt.
        started: the time at which the attempt began.
        deferred: the settlement that ends with the body; None if the call is settled already.
        alone: whether httpcore reads it from a connection that has no other response.
        slot: its slot in a pool that may lose it; None for other pools.
    """

    def __init__(
        self,
        stream: Any,
        call: HttpCall,
        timeouts: Timeouts,
        started: float,
        deferred: DeferredSettlement | None,
        alone: bool,
        slot: PoolSlot | None,
    ) -> None:
        super().__init__(stream, call, timeouts, started, deferred)
        self._alone = alone
        self._slot = slot
        if slot is not None:
            slot.set_stream(stream)

    def __aiter__(self) -> AsyncBody:
        self._iterator = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        deadline = self._call.total_deadline
        try:
            following: Any = anext(self._iterator)
            chunk: Any = await (following if deadline == FOREVER else _runtime.await_until(deadline, following))
        except StopAsyncIteration:
            self._iterator = None
            self._end(OK)
            raise
        except Exception as error:
            await self._repair_pool(error)
            if self._is_late() and self._call.caused_by_deadline(error):
                raise self._end_late(error) from error
            self._fail(error)
            raise
        except BaseException as error:
            self._fail(error)
            await self._repair_pool(error)
            raise
        if chunk is TIMED_OUT or self._is_late():
            late = self._end_late()
            await self.aclose()
            raise late
        data: bytes = chunk
        return data

    async def drain(self, until: float) -> bytes | None:
        """Close the body of a failed response.

        Args:
            until: the time until which it is read.

        Returns:
            What was read, if it is the whole body; None if the body was too large or too slow.
        """
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
        """Close the body. To close it before its end is a success: the caller has read what it needs."""
        try:
            await self._close()
        except BaseException as error:
            await self._repair_pool(error)
            raise
        finally:
            self._end(OK)

    async def _repair_pool(self, error: BaseException) -> None:
        """Release the slots that the pool has lost, after an exception that httpcore has raised."""
        if self._slot is not None:
            await self._slot.repair(error)

    async def _close(self) -> None:
        """Close the stream and its generators."""
        await self._stream.aclose()
        iterator, self._iterator = self._iterator, None
        if iterator is None:
            return
        # trio warns of an async generator that is left to the garbage collector. The nested generators of httpcore end
        # by reading on, since reading from a closed connection raises. An HTTP/2 connection stays open, so that reading
        # on would wait without end.
        with contextlib.suppress(Exception):
            if self._alone:
                await _runtime.await_until(clock.monotonic() + DRAIN_SECONDS, _exhaust(iterator))
            elif hasattr(iterator, "aclose"):
                await iterator.aclose()


async def _gather(iterator: Any, until: float) -> bytes | None:
    """Return the whole body, or None if it is too large or too slow."""
    read = bytearray()
    async for chunk in iterator:
        read += chunk
        if len(read) > DRAIN_BYTES or clock.monotonic() >= until:
            return None
    return bytes(read)


async def _exhaust(iterator: Any) -> None:
    """Read to the end."""
    async for _ in iterator:
        pass


def is_alone(response: Any) -> bool:
    """Return whether the connection of a response has no other responses: that is so for HTTP/1, not for HTTP/2."""
    version = response.extensions.get("http_version")
    return isinstance(version, bytes) and version.startswith(b"HTTP/1")
