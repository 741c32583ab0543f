"""The calls that the interceptors of `grpc.aio` return for RPCs with streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from functools import partial
from typing import Any, NoReturn
from weakref import ref

import grpc

from resilience import _runtime
from resilience._util.clock import TIMED_OUT
from resilience.grpc._call import BaseRpcCall, StreamedRpcCall
from resilience.grpc._errors import LocalAioRpcError
from resilience.grpc._failures import CANCELLED
from resilience.grpc._head import EMPTY, StreamSettlement
from resilience.grpc.aio._attempts import AioAttempts, AioHead
from resilience.grpc.aio._outcomes import AioLocalStream
from resilience.grpc.aio._running import AioRunningRpc

_ITERATED = "the requests of this call come from an iterator"


class AioStreamUnaryCall(AioRunningRpc, grpc.aio.StreamUnaryCall[Any, Any]):
    """A call with a stream of requests and one response."""

    async def attempt(self, call: BaseRpcCall) -> Any:
        """Make an attempt and return its response; the function that the pipeline calls."""
        try:
            return await self._attempts.response(call, self._set_attempt)
        finally:
            self._set_attempt(None)

    def _outcome_of_result(self, result: Any) -> Any:
        return self._attempts.call_of(result)

    def __await__(self) -> Generator[Any, None, Any]:
        outcome: Any = yield from self._task.__await__()
        waiting: Generator[Any, None, Any] = outcome.__await__()
        return (yield from waiting)

    async def write(self, request: Any) -> NoReturn:
        """Raise an error: gRPC hands requests over as an iterator."""
        raise grpc.aio.UsageError(_ITERATED)

    async def done_writing(self) -> NoReturn:
        """Raise an error: gRPC hands requests over as an iterator."""
        raise grpc.aio.UsageError(_ITERATED)


class _ResponseStream(AioRunningRpc):
    """A call with a stream of responses.

    Args:
        attempts: makes the attempts.
    """

    def __init__(self, attempts: AioAttempts) -> None:
        super().__init__(attempts)
        self._head: AioHead | None = None
        self._responses: AsyncIterator[Any] | None = None

    async def attempt(self, call: StreamedRpcCall) -> AioHead:
        """Make an attempt and return the head of its stream; the function that the pipeline calls."""
        try:
            return await self._attempts.head(call, self._set_attempt)
        finally:
            self._set_attempt(None)

    def _outcome_of_result(self, result: Any) -> Any:
        if not isinstance(result, AioHead):
            return AioLocalStream(result)  # the replacement of a Fallback
        self._head = result
        self._attempts.request_source.commit()
        result.release()
        return result.stream

    def _late(self) -> Any:
        late = None if self._head is None else self._head.late
        if late is not None:
            self._guard.translate(late)
        return late

    def _watch(self, outcome: Any) -> None:
        super()._watch(outcome)
        if self._head is not None and self._head.settlement is not None:
            outcome.add_done_callback(partial(_settle, ref(outcome), self._head.settlement))

    def cancel(self) -> bool:
        """Cancel the RPC, so that no further attempt is made; return False if it has ended."""
        cancelled = super().cancel()
        if cancelled and self._head is not None:
            self._head.end(LocalAioRpcError(grpc.StatusCode.CANCELLED, CANCELLED))
        return cancelled

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._responses is None:
            self._responses = self._iterate()
        return self._responses

    async def read(self) -> Any:
        """Return the next response, or `grpc.aio.EOF` at the end."""
        return await anext(aiter(self), grpc.aio.EOF)

    async def _iterate(self) -> AsyncIterator[Any]:
        outcome = await self._task
        head = self._head
        if head is None:
            async for response in outcome:
                yield response
            return
        response, head.first = head.first, EMPTY
        try:
            while response is not EMPTY:
                yield response
                if head.silences is None:
                    response = await anext(head.responses, EMPTY)
                else:
                    until = head.silences.begin()
                    response = await _runtime.await_until(until, anext(head.responses, EMPTY))
                    if response is TIMED_OUT:
                        head.cut()
                        raise TimeoutError
                    head.silences.end()
        except GeneratorExit:
            raise
        except Exception as error:
            head.end(error)
            late = self._late()
            if late is None:
                raise
            raise late from error
        except asyncio.CancelledError:
            if head.settlement is not None:
                head.settlement.abandon()
            raise
        head.end(None)


class AioUnaryStreamCall(_ResponseStream, grpc.aio.UnaryStreamCall[Any, Any]):
    """A call with one request and a stream of responses."""


class AioStreamStreamCall(_ResponseStream, grpc.aio.StreamStreamCall[Any, Any]):
    """A call with streams of requests and responses."""

    async def write(self, request: Any) -> NoReturn:
        """Raise an error: gRPC hands requests over as an iterator."""
        raise grpc.aio.UsageError(_ITERATED)

    async def done_writing(self) -> NoReturn:
        """Raise an error: gRPC hands requests over as an iterator."""
        raise grpc.aio.UsageError(_ITERATED)


def _settle(stream: Any, settlement: StreamSettlement, call: object) -> None:
    """Settle the call of a stream that has ended before its responses were read."""
    del call
    alive = stream()
    if alive is None:
        settlement.abandon()
    elif not settlement.ended:
        _runtime.task_starter()(partial(_settle_by_status, alive, settlement))


async def _settle_by_status(stream: Any, settlement: StreamSettlement) -> None:
    """Settle a call by the status of its stream, which has ended."""
    code = await stream.code()
    error = None if code is grpc.StatusCode.OK else LocalAioRpcError(code, await stream.details() or "")
    settlement.end(error)
