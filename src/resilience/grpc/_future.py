"""The future of a guarded RPC: its pipeline runs on a thread of its own, so that nobody else has to wait."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

import grpc

from resilience._call.running_call import RunningCall
from resilience._runtime import threads
from resilience._util.clock import FOREVER, clock
from resilience._util.locks import new_lock
from resilience._util.log_once import hook_failed
from resilience.grpc._failures import code_of
from resilience.grpc._outcomes import Future, LocalResponse, outcome_of


class Attempting(Protocol):
    """The attempts that a future makes."""

    def begin(self) -> tuple[Any, bool]:
        """Start one; returns it, and what is known about the connection."""
        ...

    def finish(self, outcome: Any, apart: bool) -> Any:
        """Wait for its end."""
        ...

    def call_of(self, response: Any) -> Any:
        """Return the call of the attempt that received a response."""
        ...


class Running(Protocol):
    """What passes a call through a pipeline."""

    def run(self, call: RunningCall) -> Any:
        """Make the call."""
        ...


class FutureState(Enum):
    """Where a future is in its life."""

    RUNNING = 1
    CANCELLED = 2
    DONE = 3


class _Cancelled(LocalResponse):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "Locally cancelled by application!"


class RpcFuture(grpc.Call, Future):
    """An RPC on its way: `grpc.Call` and `grpc.Future` at once, as grpc's own is.

    `cancel` ends it wherever it is: in flight, in a queue, or waiting for its next attempt. Callbacks run on the thread
    of the RPC, when every permit is back; what one raises is logged once, and none is stopped by `cancel`.
    """

    def __init__(self, attempts: Attempting) -> None:
        self._attempts = attempts
        self._mutex = new_lock()
        self._stop = threads.StopToken()
        self._phase = FutureState.RUNNING
        self._over = False
        self._outcome: Any = None
        self._in_flight: set[Any] = set()
        self._callbacks: deque[Callable[[], object]] = deque()
        self._wakes: list[Callable[[], object]] = []
        self._deadline = FOREVER

    def start(self, guard: Running, call: RunningCall) -> None:
        """Start the RPC; for the interceptor that made this."""
        self._deadline = call.deadline
        threads.start(lambda: self._work(guard, call), self._stop)

    def attempt(self) -> Any:
        """Make an attempt; it is what the pipeline calls."""
        if self.cancelled():
            raise threads.Stopped
        outcome, apart = self._attempts.begin()
        with self._mutex:
            self._in_flight.add(outcome)
            late = self._phase is FutureState.CANCELLED
        if late:
            outcome.cancel()
        try:
            return self._attempts.finish(outcome, apart)
        except grpc.FutureCancelledError:
            if self.cancelled():
                raise threads.Stopped from None
            raise
        finally:
            self._in_flight.discard(outcome)
            del outcome  # it may be an error, whose traceback holds this frame

    def _work(self, guard: Running, call: RunningCall) -> None:
        self._end(self._made(guard, call))

    def _made(self, guard: Running, call: RunningCall) -> Any:
        try:
            return self._attempts.call_of(guard.run(call))
        except threads.Stopped:
            return _Cancelled(None)
        except BaseException as error:
            # Its frames are those of this thread. They hold the future, which is to hold the error.
            return outcome_of(error.with_traceback(None) if isinstance(error, grpc.RpcError) else error)
        finally:
            threads.stopping.set(None)  # what callbacks do is not stopped with the RPC

    def _end(self, outcome: Any) -> None:
        with self._mutex:
            self._outcome = _Cancelled(None) if self._phase is FutureState.CANCELLED else outcome
            if self._phase is FutureState.RUNNING:
                self._phase = FutureState.DONE  # after the outcome: nobody takes the lock to look
            self._over = True
            callbacks, self._callbacks = self._callbacks, deque()
        self._wake()
        _call_back(callbacks)

    def _wake(self) -> None:
        with self._mutex:
            wakes, self._wakes = self._wakes, []
        for wake in wakes:
            with contextlib.suppress(RuntimeError):  # whoever waits has just been told to stop, which wakes, too
                wake()

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Ask to be woken when it is done."""
        with self._mutex:
            if self._phase is not FutureState.RUNNING:
                return False
            self._wakes.append(wake)
            return True

    def forget(self, wake: Callable[[], object]) -> None:
        """Wake no more who has asked to be woken."""
        with self._mutex, contextlib.suppress(ValueError):
            self._wakes.remove(wake)

    def _wait(self, timeout: float | None) -> None:
        if self._phase is FutureState.RUNNING:
            bell = _FutureWaiter(self)
            try:
                threads.park(bell, FOREVER if timeout is None else clock.monotonic() + timeout)
            finally:
                bell.leave()
            if self._phase is FutureState.RUNNING:
                raise grpc.FutureTimeoutError

    def _finished(self, timeout: float | None = None) -> Any:
        self._wait(timeout)
        return _Cancelled(None) if self._phase is FutureState.CANCELLED else self._outcome

    def _settled(self, timeout: float | None) -> Any:
        self._wait(timeout)
        if self._phase is FutureState.CANCELLED:
            raise grpc.FutureCancelledError
        return self._outcome

    def cancel(self) -> bool:
        """Cancel it; returns False when it is done already. Nothing is retried any more."""
        with self._mutex:
            if self._phase is not FutureState.RUNNING:
                return False
            self._phase = FutureState.CANCELLED
            in_flight = list(self._in_flight)
        self._stop.stop()
        for outcome in in_flight:
            outcome.cancel()
        self._wake()
        return True

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._phase is FutureState.CANCELLED

    def running(self) -> bool:
        """Return whether it is not done yet."""
        return self._phase is FutureState.RUNNING

    def done(self) -> bool:
        """Return whether it has a response or an error, or was cancelled."""
        return self._phase is not FutureState.RUNNING

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the response and return it, or raise the error.

        Raises:
            grpc.FutureTimeoutError: it is not done within `timeout` seconds; it goes on.
            grpc.FutureCancelledError: it was cancelled.
        """
        return self._settled(timeout).result()

    def exception(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the error, or None; the errors are those of `result`."""
        return self._settled(timeout).exception()

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Wait for the end and return the traceback of the error, or None; the errors are those of `result`."""
        traceback: TracebackType | None = self._settled(timeout).traceback()
        return traceback

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have `fn` called with this future at its end; at once, if that has come."""
        if not self._listen(lambda: fn(self)):
            fn(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called at its end; returns False, and does not call it, if that has come."""
        return self._listen(callback)

    def _listen(self, callback: Callable[[], object]) -> bool:
        with self._mutex:
            if not self._over:
                self._callbacks.append(callback)
            return not self._over

    def is_active(self) -> bool:
        """Return whether it is not done yet."""
        return self.running()

    def time_remaining(self) -> Any:
        """Return the seconds that are left until the caller's deadline, for all attempts; None where there is none.

        That is `timeout=` of the call, or the ambient deadline; a Timeout of the pipeline may end it before.
        """
        return None if self._deadline == FOREVER else max(0.0, self._deadline - clock.monotonic())

    def code(self) -> Any:
        """Wait for the end and return the status code."""
        return self._finished().code()

    def details(self) -> Any:
        """Wait for the end and return the details of the status."""
        return self._finished().details()

    def initial_metadata(self) -> Any:
        """Wait for the end and return the initial metadata of the attempt that counts."""
        return self._finished().initial_metadata()

    def trailing_metadata(self) -> Any:
        """Wait for the end and return the trailing metadata of the attempt that counts."""
        return self._finished().trailing_metadata()

    def debug_error_string(self) -> str:
        """Wait for the end and return what grpc has to say besides; empty where the outcome is not one of grpc's."""
        ask: Any = getattr(self._finished(), "debug_error_string", None)
        said: str | None = None if ask is None else ask()
        return said or ""

    def __repr__(self) -> str:
        code = None if self._phase is FutureState.RUNNING else code_of(self._finished())
        return f"<{type(self).__name__}: {'on its way' if code is None else code.name}>"


class _FutureWaiter:
    """One wait for a future, which leaves nothing behind when it ends before the future does."""

    def __init__(self, future: RpcFuture) -> None:
        self._future = future
        self._wake: Callable[[], object] | None = None

    def add_waker(self, wake: Callable[[], object]) -> bool:
        self._wake = wake
        return self._future.add_waker(wake)

    def leave(self) -> None:
        if self._wake is not None:
            self._future.forget(self._wake)


def _call_back(callbacks: deque[Callable[[], object]]) -> None:
    """Call each once, the rest also when one raises what is no Exception, which comes out in the end."""
    try:
        while callbacks:
            callback = callbacks.popleft()
            try:
                callback()
            except Exception as error:
                hook_failed("callback of an RPC", callback, error)
    finally:
        if callbacks:
            _call_back(callbacks)
