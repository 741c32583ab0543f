"""The messages of a request iterator for the attempts of an RPC of `grpc.aio`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from resilience.grpc._requests import RequestBuffer


class AioReplayedRequests(RequestBuffer):
    """The messages of a request iterator, plain or async, which is read once for all attempts.

    Args:
        requests: the iterator of the caller. If it raises an exception, so do those of all attempts.
    """

    def __init__(self, requests: Any) -> None:
        super().__init__()
        self._is_async = hasattr(requests, "__aiter__")
        self._source: Any = aiter(requests) if self._is_async else iter(requests)
        self._reading: asyncio.Task[None] | None = None

    def for_attempt(self) -> AsyncIterator[Any]:
        """Return an async iterator over all messages. Those of earlier attempts end."""
        return self._replay(self._begin())

    async def _replay(self, attempt: int) -> AsyncIterator[Any]:
        number = 0
        while True:
            if not self.has(number):
                await self._read()
            if self._latest != attempt or not self.has(number):
                return
            yield self.take(number)
            number += 1

    async def _read(self) -> None:
        """Read the next message into the buffer, unless there is none."""
        if self.error is not None:
            raise self.error
        if self.exhausted:
            return
        if not self._is_async or (not self.replayable and self._reading is None):
            await self._read_source()  # no other attempt can follow, or nothing is awaited
        else:
            # In a task, since gRPC cancels the reader of an attempt that has failed, which would end the iterator.
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read_source())
            await asyncio.wait({self._reading})
        if self.error is not None:
            raise self.error

    async def _read_source(self) -> None:
        try:
            message = await anext(self._source) if self._is_async else next(self._source)
        except (StopIteration, StopAsyncIteration):
            self.exhausted = True
        except Exception as error:
            self.error = error
        else:
            self.add(message)
        finally:
            self._reading = None

    def close(self) -> None:
        """Stop to read, since the RPC has ended."""
        if self._reading is not None:
            self._reading.cancel()
