"""The bodies of responses of async clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import ref

from resilience import _runtime
from resilience._call.settlement import DeferredSettlement
from resilience._util.clock import FOREVER, TIMED_OUT, clock
from resilience._util.finalizers import pending, run_pending
from resilience.httpx._body import DRAIN_BYTES, DRAIN_SECONDS, GuardedBody
from resilience.httpx._call import HttpCall
from resilience.httpx._deadline import Timeouts
from resilience.httpx._failures import read_error
from resilience.httpx._pool_repair import PoolSlot
from resilience.httpx._privates import has_arrived


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
        self._closed = False
        self._iterator: Callable[[], Any] = _none
        self._start_task = _runtime.task_starter()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks. The iterator is not kept, so that dropping it closes the body, as without the library."""
        iterator, silences = self._begin(), self._silences
        try:
            while True:
                deadline = self._begin_wait()
                if deadline != FOREVER and has_arrived(self._stream):  # what is left is in memory
                    deadline = FOREVER
                following: Any = anext(iterator)
                try:
                    chunk: Any = await (following if deadline == FOREVER else _runtime.await_until(deadline, following))
                except StopAsyncIteration:
                    break
                late = self._cut_source() if chunk is TIMED_OUT else self._late()
                if late is not None:
                    error = self._end_late(late)
                    await self.aclose()
                    raise error
                if silences is not None:
                    silences.end()
                data: bytes = chunk
                yield data
        except GeneratorExit:
            if not self._over:
                self._stop_reading()
                await self._close()
            raise
        except Exception as error:
            if not self._over:
                await self._repair_pool(error)
                late = self._late()
                if late is not None and self._call.caused_by_deadline(error):
                    raise self._end_late(late, error) from error
                translated = read_error(error, self._call.request)
                if translated is not None:
                    self._fail(translated)
                    raise translated from error
                self._fail(error)
            raise
        except BaseException as error:
            self._fail(error)
            await self._repair_pool(error)
            raise
        self._end(self._good)

    async def drain(self, until: float) -> bytes | None:
        """Close the body of a failed response.

        Args:
            until: the time until which it is read.

        Returns:
            What was read, if it is the whole body; None if the body was too large or too slow.
        """
        self._over = True
        iterator = self._begin()
        read: Any = None
        try:
            read = await _runtime.await_until(until, _gather(iterator, until))
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
            self._end(self._good)
            if pending:
                run_pending()  # the events of a body that was dropped before it was closed

    def _begin(self) -> Any:
        """Return an iterator of the stream, of which the body itself keeps a weak reference only."""
        iterator: Any = aiter(self._stream)
        with contextlib.suppress(TypeError):  # an iterator of a kind that no weak reference can be made to
            self._iterator = ref(iterator)
        return iterator

    def _release(self) -> None:
        self._start_task(self._stream.aclose)

    async def _repair_pool(self, error: BaseException) -> None:
        """Release the slots that the pool has lost, after an exception that httpcore has raised."""
        if self._slot is not None:
            await self._slot.repair(error)

    async def _close(self) -> None:
        """Close the stream and its generators, once."""
        if self._closed:
            return
        await self._stream.aclose()
        self._closed = True
        iterator, self._iterator = self._iterator(), _none
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


def _none() -> None:
    return None


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
