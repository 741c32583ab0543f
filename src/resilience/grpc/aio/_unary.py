"""RPCs with one request and one response of a guarded channel of `grpc.aio`.

They do what the interceptor does, without the tasks and calls that gRPC makes for each intercepted RPC, which cost more
than the pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any

import grpc

from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import hook_failed
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._failures import CANCELLED
from resilience.grpc._guard import Guard
from resilience.grpc.aio._attempts import UnaryAttempts


class RunningCalls(set["AioUnaryUnaryCall"]):
    """The calls of a channel that have not ended.

    Attributes:
        closed: whether the channel is closed, or is being closed.
    """

    closed = False


class AioUnaryUnaryCall(grpc.aio.UnaryUnaryCall[Any, Any]):
    """An RPC with one request and one response.

    Its pipeline runs in the task that awaits the call at once, as in `await stub(request)`; this saves a task. If
    nothing awaits it until the next turn of the event loop, it starts in a task of its own, since RPCs of gRPC are sent
    whether or not they are awaited.

    Args:
        guard: the guard of the channel.
        attempts: makes the attempts.
        call: the call of the pipeline.
        loop: the event loop of the channel.
        calls: the calls of the channel that have not ended; this one is among them until it has.
    """

    _channel = None  # where older versions of grpc look at the calls of a channel that is closed

    # Attributes of the class cost nothing to set.
    _task: asyncio.Task[Any] | None = None
    _is_borrowed = False
    _interruptions = 0
    _is_done = False
    _response: Any = None
    _error: BaseException | None = None
    _traceback: TracebackType | None = None
    _waiting: tuple[asyncio.Future[None], ...] = ()
    _callbacks: tuple[Callable[[Any], object], ...] = ()

    def __init__(
        self,
        guard: Guard,
        attempts: UnaryAttempts,
        call: BaseRpcCall,
        loop: asyncio.AbstractEventLoop,
        calls: RunningCalls,
    ) -> None:
        self._guard = guard
        self._attempts = attempts
        self._call = call
        self._loop = loop
        self._calls = calls
        self._deadline = call.deadline
        calls.add(self)
        self._starting: asyncio.Handle | None = loop.call_soon(self._start)

    # How the pipeline runs

    def _start(self) -> None:
        """Start the pipeline in a task of its own."""
        self._starting = None
        self._task = self._loop.create_task(self._guard.arun(self._call))
        self._task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[Any]) -> None:
        """Called when the task of its own has ended."""
        if task.cancelled():
            self._end(None, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._end(None, error)
        else:
            self._end(task.result(), None)

    def __await__(self) -> Generator[Any, None, Any]:
        starting, task = self._starting, None
        try:
            if starting is not None:
                task = asyncio.current_task(self._loop)
            if starting is None or task is None:
                return (yield from self._wait_for_response())
            starting.cancel()
            self._starting = None
            self._task = task
            self._is_borrowed = True
            try:
                response = yield from self._guard.arun(self._call).__await__()
            except BaseException as error:
                self._end(None, error)
                raise
            self._response = response
            self._is_done = True
            self._calls.discard(self)
            if self._interruptions or self._waiting or self._callbacks:
                self._report()
            return response
        finally:
            del self  # the traceback of an error, which the call keeps, refers to this frame

    def _wait_for_response(self) -> Generator[Any, None, Any]:
        """Wait for the end and return the response, or raise the error. To cancel this wait cancels the RPC."""
        try:
            if not self._is_done:
                try:
                    yield from self.ended().__await__()
                except asyncio.CancelledError:
                    self.cancel()
                    yield from self.ended().__await__()
                    raise
            if self._error is None:
                return self._response
            if isinstance(self._error, asyncio.CancelledError):
                raise asyncio.CancelledError
            raise self._error.with_traceback(self._traceback)  # not that of an earlier await, which it would add to
        finally:
            del self  # as above

    async def ended(self) -> None:
        """Wait for the end. To cancel this wait does not cancel the RPC."""
        if not self._is_done:
            ended = self._loop.create_future()
            self._waiting += (ended,)
            try:
                await ended
            finally:
                self._waiting = tuple(one for one in self._waiting if one is not ended)

    def _end(self, response: Any, error: BaseException | None) -> None:
        """Keep the outcome, and run the callbacks."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            error = asyncio.CancelledError()  # without a traceback
        self._response, self._error = response, error
        self._traceback = None if error is None else error.__traceback__
        self._is_done = True
        self._calls.discard(self)
        self._call.end()  # also of a task that was cancelled before it began
        self._report()

    def _report(self) -> None:
        """Wake what waits for the end, and run the callbacks."""
        for _ in range(self._interruptions):
            assert self._task is not None
            self._task.uncancel()
        for ended in self._waiting:
            if not ended.done():
                with contextlib.suppress(RuntimeError):  # the event loop is closed
                    ended.set_result(None)
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback(self)
            except (Exception, asyncio.CancelledError) as failed:
                hook_failed("callback of an RPC", callback, failed)

    def cancel(self) -> bool:
        """Cancel the RPC, so that no further attempt is made; return False if it has ended."""
        if self._is_done:
            return False
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
            self._end(None, asyncio.CancelledError())
            return True
        assert self._task is not None
        if not self._is_borrowed:
            return self._task.cancel()
        if asyncio.current_task(self._loop) is self._task:  # such as from a listener of the pipeline
            self._loop.call_soon(self._interrupt)
        else:
            self._interrupt()
        return True

    def _interrupt(self) -> None:
        """Cancel the task that awaits the RPC, until the RPC has ended. The task is suspended in it.

        The message of a cancellation from outside is kept: anyio recognizes its own by it.
        """
        task = self._task
        if not self._is_done and task is not None:
            self._interruptions += 1
            task.cancel(getattr(task, "_cancel_message", None) if task.cancelling() else None)

    # What gRPC's own calls tell

    def done(self) -> bool:
        """Return whether the RPC has ended."""
        return self._is_done

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        error: Any = self._error
        if isinstance(error, grpc.aio.AioRpcError):
            return error.code() is grpc.StatusCode.CANCELLED
        return isinstance(error, asyncio.CancelledError)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have `callback` called with this call when the RPC has ended; it is called at once if it has already."""
        if self._is_done:
            callback(self)
        else:
            self._callbacks += (callback,)

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's `timeout=` or ambient deadline, for all attempts; None without one."""
        return None if self._deadline == FOREVER else max(0.0, self._deadline - clock.monotonic())

    async def wait_for_connection(self) -> None:
        """Wait for the end, as gRPC does for RPCs without streams.

        Raises:
            grpc.RpcError: the RPC has failed.
        """
        await self

    async def code(self) -> grpc.StatusCode:
        """Wait for the end and return the status code."""
        code: grpc.StatusCode = await self._ask("code", grpc.StatusCode.CANCELLED)
        return code

    async def details(self) -> str:
        """Wait for the end and return the details of the status."""
        return str(await self._ask("details", CANCELLED) or "")

    async def debug_error_string(self) -> str:
        """Wait for the end and return grpc's debug string; an empty string if the outcome was not made by grpc."""
        return str(await self._ask("debug_error_string", "") or "")

    async def initial_metadata(self) -> Any:
        """Wait for the end and return the initial metadata of the attempt that gave the outcome."""
        return await self._ask("initial_metadata", grpc.aio.Metadata())

    async def trailing_metadata(self) -> Any:
        """Wait for the end and return the trailing metadata of the attempt that gave the outcome."""
        return await self._ask("trailing_metadata", grpc.aio.Metadata())

    async def _ask(self, name: str, cancelled: Any) -> Any:
        """Wait for the end, and return what the call of the attempt, or the error, says; `cancelled` if cancelled.

        To cancel this wait does not cancel the RPC.
        """
        await self.ended()
        error: Any = self._error
        if error is None:
            return await getattr(self._attempts.call_of(self._response), name)()
        if isinstance(error, asyncio.CancelledError):
            return cancelled
        if isinstance(error, grpc.aio.AioRpcError):
            return getattr(error, name)()
        raise error
