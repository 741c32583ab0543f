"""The future of a guarded RPC, whose pipeline runs on a separate thread."""

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
from resilience._util.locks import make_lock
from resilience._util.log_once import hook_failed
from resilience.grpc._failures import code_of
from resilience.grpc._guard import Guard
from resilience.grpc._outcomes import Future, LocalResponse, outcome_of


class AttemptMaker(Protocol):
    """Makes the attempts of a future; see `Attempts`."""

    def begin(self) -> tuple[Any, bool]: ...

    def finish(self, outcome: Any, disconnected: bool) -> Any: ...

    def call_of(self, response: Any) -> Any: ...


class FutureState(Enum):
    """The states of a future."""

    RUNNING = 1
    """It has no outcome yet, and was not cancelled."""
    CANCELLED = 2
    """It was cancelled."""
    DONE = 3
    """It has an outcome: a response or an error."""


class _Cancelled(LocalResponse):
    """The outcome of a future that was cancelled."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "Locally cancelled by application!"


class RpcFuture(grpc.Call, Future):
    """An RPC in progress: `grpc.Call` and `grpc.Future` at once, as the futures of grpc are.

    `cancel` ends it in flight, in a queue, and in the wait before an attempt. Callbacks run on the thread of the RPC
    after every permit has been released. An exception that a callback raises is logged once. `cancel` does not
    interrupt callbacks.

    Args:
        attempts: makes the attempts.
    """

    def __init__(self, attempts: AttemptMaker) -> None:
        self._attempts = attempts
        self._mutex = make_lock()
        self._stop = threads.StopToken()
        self._state = FutureState.RUNNING
        self._ended = False
        self._outcome: Any = None
        self._in_flight: set[Any] = set()
        self._callbacks: deque[Callable[[], object]] = deque()
        self._wakes: list[Callable[[], object]] = []
        self._deadline = FOREVER

    def start(self, guard: Guard, call: RunningCall) -> None:
        """Start the RPC; called once, by the interceptor that created the future."""
        self._deadline = call.deadline
        threads.start(lambda: self._run(guard, call), self._stop)

    def attempt(self) -> Any:
        """Make an attempt and return its response; the function that the pipeline calls."""
        if self.cancelled():
            raise threads.Stopped
        outcome, disconnected = self._attempts.begin()
        with self._mutex:
            self._in_flight.add(outcome)
            cancelled = self._state is FutureState.CANCELLED
        if cancelled:
            outcome.cancel()
        try:
            return self._attempts.finish(outcome, disconnected)
        except grpc.FutureCancelledError:
            if self.cancelled():
                raise threads.Stopped from None
            raise
        finally:
            self._in_flight.discard(outcome)
            del outcome  # it may be an error, whose traceback holds this frame

    def _run(self, guard: Guard, call: RunningCall) -> None:
        """Make the RPC; the function of its thread."""
        self._end(self._make_outcome(guard, call))

    def _make_outcome(self, guard: Guard, call: RunningCall) -> Any:
        """Pass the call through the pipeline and return its outcome."""
        try:
            return self._attempts.call_of(guard.run(call))
        except threads.Stopped:
            return _Cancelled(None)
        except BaseException as error:
            # The traceback holds frames of this thread, which hold the future, which will hold the error: a cycle.
            return outcome_of(error.with_traceback(None) if isinstance(error, grpc.RpcError) else error)
        finally:
            threads.stopping.set(None)  # cancelling the RPC must not interrupt its callbacks

    def _end(self, outcome: Any) -> None:
        """Set the outcome, wake the waiting threads, and run the callbacks."""
        with self._mutex:
            self._outcome = _Cancelled(None) if self._state is FutureState.CANCELLED else outcome
            if self._state is FutureState.RUNNING:
                self._state = FutureState.DONE  # set after the outcome, since readers do not take the lock
            self._ended = True
            callbacks, self._callbacks = self._callbacks, deque()
        self._wake()
        _run_callbacks(callbacks)

    def _wake(self) -> None:
        """Wake the threads that wait for the future."""
        with self._mutex:
            wakes, self._wakes = self._wakes, []
        for wake in wakes:
            with contextlib.suppress(RuntimeError):  # the waiting thread was stopped at this moment, and is awake
                wake()

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Have `wake` called when the future is done; return False, and do not call it, if it is done already."""
        with self._mutex:
            if self._state is not FutureState.RUNNING:
                return False
            self._wakes.append(wake)
            return True

    def remove_waker(self, wake: Callable[[], object]) -> None:
        """Remove what `add_waker` has added, if it is still there."""
        with self._mutex, contextlib.suppress(ValueError):
            self._wakes.remove(wake)

    def _wait(self, timeout: float | None) -> None:
        """Wait until the future is done or cancelled, or raise FutureTimeoutError after `timeout` seconds."""
        if self._state is FutureState.RUNNING:
            waiter = _FutureWaiter(self)
            try:
                threads.park(waiter, FOREVER if timeout is None else clock.monotonic() + timeout)
            finally:
                waiter.remove()
            if self._state is FutureState.RUNNING:
                raise grpc.FutureTimeoutError

    def _wait_for_outcome(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the outcome; that of a cancelled future has the code CANCELLED."""
        self._wait(timeout)
        return _Cancelled(None) if self._state is FutureState.CANCELLED else self._outcome

    def _wait_for_result(self, timeout: float | None) -> Any:
        """Wait for the end and return the outcome; raise FutureCancelledError if the future was cancelled."""
        self._wait(timeout)
        if self._state is FutureState.CANCELLED:
            raise grpc.FutureCancelledError
        return self._outcome

    def cancel(self) -> bool:
        """Cancel the RPC, so that no further attempt is made; return False if it is done or cancelled already."""
        with self._mutex:
            if self._state is not FutureState.RUNNING:
                return False
            self._state = FutureState.CANCELLED
            in_flight = list(self._in_flight)
        self._stop.stop()
        for outcome in in_flight:
            outcome.cancel()
        self._wake()
        return True

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        return self._state is FutureState.CANCELLED

    def running(self) -> bool:
        """Return whether the RPC has no outcome yet, and was not cancelled."""
        return self._state is FutureState.RUNNING

    def done(self) -> bool:
        """Return whether the RPC has a response or an error, or was cancelled."""
        return self._state is not FutureState.RUNNING

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the response and return it, or raise the error of the RPC.

        Args:
            timeout: the seconds to wait; None for no limit. The RPC continues after it.

        Raises:
            grpc.FutureTimeoutError: the RPC was not done within `timeout` seconds.
            grpc.FutureCancelledError: the RPC was cancelled.
        """
        return self._wait_for_result(timeout).result()

    def exception(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the error, or None if the RPC succeeded; `timeout` and Raises as in `result`."""
        return self._wait_for_result(timeout).exception()

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Wait for the end and return the traceback of the error, or None if the RPC succeeded; see `result`."""
        traceback: TracebackType | None = self._wait_for_result(timeout).traceback()
        return traceback

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have `fn` called with this future when it is done; it is called at once if the future is done already."""
        if not self.add_callback(lambda: fn(self)):
            fn(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the RPC is done; return False, and do not call it, if it is done already."""
        with self._mutex:
            if not self._ended:
                self._callbacks.append(callback)
            return not self._ended

    def is_active(self) -> bool:
        """Return whether the RPC has no outcome yet, and was not cancelled."""
        return self.running()

    def time_remaining(self) -> Any:
        """Return the seconds until the caller's `timeout=` or ambient deadline, for all attempts; None without one."""
        return None if self._deadline == FOREVER else max(0.0, self._deadline - clock.monotonic())

    def code(self) -> Any:
        """Wait for the end and return the status code."""
        return self._wait_for_outcome().code()

    def details(self) -> Any:
        """Wait for the end and return the details of the status."""
        return self._wait_for_outcome().details()

    def initial_metadata(self) -> Any:
        """Wait for the end and return the initial metadata of the attempt that gave the outcome."""
        return self._wait_for_outcome().initial_metadata()

    def trailing_metadata(self) -> Any:
        """Wait for the end and return the trailing metadata of the attempt that gave the outcome."""
        return self._wait_for_outcome().trailing_metadata()

    def debug_error_string(self) -> str:
        """Wait for the end and return grpc's debug string; an empty string if the outcome was not made by grpc."""
        method: Any = getattr(self._wait_for_outcome(), "debug_error_string", None)
        text: str | None = None if method is None else method()
        return text or ""

    def __repr__(self) -> str:
        code = None if self._state is FutureState.RUNNING else code_of(self._wait_for_outcome())
        return f"<{type(self).__name__}: {'in progress' if code is None else code.name}>"


class _FutureWaiter:
    """One wait for a future. `remove` removes its waker if the wait ends before the future is done."""

    def __init__(self, future: RpcFuture) -> None:
        self._future = future
        self._wake: Callable[[], object] | None = None

    def add_waker(self, wake: Callable[[], object]) -> bool:
        self._wake = wake
        return self._future.add_waker(wake)

    def remove(self) -> None:
        if self._wake is not None:
            self._future.remove_waker(self._wake)


def _run_callbacks(callbacks: deque[Callable[[], object]]) -> None:
    """Call each callback once, the remaining ones also if one raises a BaseException, which is raised at the end."""
    try:
        while callbacks:
            callback = callbacks.popleft()
            try:
                callback()
            except Exception as error:
                hook_failed("callback of an RPC", callback, error)
    finally:
        if callbacks:
            _run_callbacks(callbacks)
