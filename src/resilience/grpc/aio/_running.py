"""An RPC of `grpc.aio` whose pipeline runs in a task of its own: what the calls with streams have in common."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from resilience._util.clock import FOREVER, clock
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._callbacks import Callbacks
from resilience.grpc._failures import CANCELLED
from resilience.grpc.aio._attempts import AioAttempts


class AioRunningRpc(grpc.aio.Call):
    """An RPC in progress. The interceptor returns it at once, since gRPC hands requests over only after that.

    Args:
        attempts: makes the attempts.
    """

    _channel = None  # where older versions of grpc look at the calls of a channel that is closed
    _done_writing_flag = False  # where gRPC looks before it writes a request

    def __init__(self, attempts: AioAttempts) -> None:
        self._attempts = attempts
        self._guard = attempts.guard
        self._deadline = FOREVER
        self._task: asyncio.Task[Any]
        self._attempt: Any = None
        self._waiting: list[asyncio.Future[None]] = []
        self._callbacks = Callbacks()

    def start(self, call: BaseRpcCall) -> None:
        """Start the RPC; called once, by the interceptor that created it."""
        self._deadline = call.deadline
        self._task = asyncio.get_running_loop().create_task(self._run(call))
        self._guard.running.add(self._task)  # an event loop keeps only weak references
        self._task.add_done_callback(self._end_pipeline)

    async def _run(self, call: BaseRpcCall) -> Any:
        """Pass the call through the pipeline, and return the call of the attempt that gives the outcome."""
        return self._outcome_of_result(await self._guard.arun(call))

    @abstractmethod
    def _outcome_of_result(self, result: Any) -> Any:
        """Return the call for the result of the pipeline."""

    def _set_attempt(self, attempt: Any) -> None:
        """Set the attempt that is in flight; None for none."""
        self._attempt = attempt
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def _end_pipeline(self, task: asyncio.Task[Any]) -> None:
        """Called when the pipeline has ended."""
        self._guard.running.discard(task)
        self._set_attempt(None)
        self._attempts.end()
        if task.cancelled() or task.exception() is not None:
            self._end()
        else:
            self._watch(task.result())

    def _watch(self, outcome: Any) -> None:
        """Have `_end` called when the RPC has ended."""
        outcome.add_done_callback(self._end)

    def _end(self, outcome: object = None) -> None:
        """Run the callbacks."""
        del outcome
        close: Any = getattr(self._attempts.request_source, "close", None)
        if close is not None:
            close()
        self._callbacks.run()

    def cancel(self) -> bool:
        """Cancel the RPC, so that no further attempt is made; return False if it has ended."""
        if not self._task.done():
            return self._task.cancel()
        outcome = self._outcome()
        return outcome is not None and bool(outcome.cancel())

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        if not self._task.done():
            return False
        outcome = self._outcome()
        return self._task.cancelled() if outcome is None else bool(outcome.cancelled())

    def done(self) -> bool:
        """Return whether the RPC has ended."""
        if not self._task.done():
            return False
        outcome = self._outcome()
        return outcome is None or bool(outcome.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have `callback` called with this call when the RPC has ended; it is called at once if it has already."""
        if not self._callbacks.add(partial(callback, self)):
            callback(self)

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's `timeout=` or ambient deadline, for all attempts; None without one."""
        return None if self._deadline == FOREVER else max(0.0, self._deadline - clock.monotonic())

    def _late(self) -> Any:
        """Return the error in place of that of a stream which has taken too long; None for none."""
        return None

    def _outcome(self) -> Any:
        """Return the call that gives the outcome of an RPC whose pipeline has ended; None if it raised an exception."""
        if self._task.cancelled() or self._task.exception() is not None:
            return None
        return self._task.result()

    async def _wait(self) -> Any:
        """Wait for the end of the pipeline, and return the call that gives the outcome, or else the exception.

        To cancel this wait does not cancel the RPC.
        """
        await asyncio.wait({self._task})
        if self._task.cancelled():
            return asyncio.CancelledError()
        return self._late() or self._task.exception() or self._task.result()

    async def code(self) -> grpc.StatusCode:
        """Wait for the end and return the status code."""
        outcome = await self._wait()
        if isinstance(outcome, BaseException):
            code: Any = getattr(outcome, "code", None)
            if code is None and not isinstance(outcome, asyncio.CancelledError):
                raise outcome
            return grpc.StatusCode.CANCELLED if code is None else code()
        status: grpc.StatusCode = await outcome.code()
        return status if self._late() is None else await self.code()

    async def details(self) -> str:
        """Wait for the end and return the details of the status."""
        return str(await self._told("details", CANCELLED))

    async def debug_error_string(self) -> str:
        """Wait for the end and return grpc's debug string; an empty string if the outcome was not made by grpc."""
        return str(await self._told("debug_error_string", ""))

    async def trailing_metadata(self) -> Any:
        """Wait for the end and return the trailing metadata of the attempt that gave the outcome."""
        return await self._told("trailing_metadata", None)

    async def initial_metadata(self) -> Any:
        """Wait for the initial metadata of an attempt and return it. No other attempt is made after that."""
        while True:
            attempt = await self._wait_for_attempt()
            if attempt is None:
                return await self._told("initial_metadata", None)
            metadata = await attempt.initial_metadata()
            if not attempt.done() or await attempt.code() is grpc.StatusCode.OK:
                self._attempts.request_source.commit()
                return metadata
            await self._wait_for_attempt(attempt)

    async def wait_for_connection(self) -> None:
        """Wait until an attempt is connected to the server. If one fails before that, wait for the next one.

        Raises:
            grpc.RpcError: the RPC has failed.
        """
        attempt = await self._wait_for_attempt()
        while attempt is not None:
            try:
                await attempt.wait_for_connection()
            except (grpc.RpcError, asyncio.CancelledError):
                if _is_cancelled():
                    raise
                attempt = await self._wait_for_attempt(attempt)
            else:
                return
        outcome = await self._wait()
        if isinstance(outcome, BaseException):
            raise outcome

    async def _wait_for_attempt(self, other: Any = None) -> Any:
        """Wait for an attempt in flight that is not `other`, and return it; None once the pipeline has ended."""
        while not self._task.done():
            if self._attempt is not None and self._attempt is not other:
                return self._attempt
            changed = asyncio.get_running_loop().create_future()
            self._waiting.append(changed)
            await changed
        return None

    async def _told(self, name: str, cancelled: Any) -> Any:
        """Wait for the end, and return what the call of that name, or the exception in its place, says."""
        outcome = await self._wait()
        if not isinstance(outcome, BaseException):
            said = await getattr(outcome, name)()
            outcome = self._late()
            if outcome is None:
                return said
        method: Any = getattr(outcome, name, None)
        if method is None and not isinstance(outcome, asyncio.CancelledError):
            raise outcome
        return cancelled if method is None else method()


def _is_cancelled() -> bool:
    """Return whether the running task was cancelled, unlike an attempt that it has awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
