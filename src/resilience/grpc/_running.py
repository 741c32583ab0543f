"""An RPC whose pipeline runs on a thread of its own: what futures and response streams have in common."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any

import grpc

from resilience._runtime import threads
from resilience._util.clock import FOREVER, clock
from resilience._util.locks import make_lock
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._callbacks import Callbacks
from resilience.grpc._failures import CANCELLED, CLOSED, code_of
from resilience.grpc._outcomes import Future, LocalRpcError, outcome_of
from resilience.grpc._unary import SyncAttempts


class RpcState(Enum):
    """The states of the pipeline of an RPC."""

    RUNNING = 1
    """It has not ended, and the RPC was not cancelled."""
    CANCELLED = 2
    """The RPC was cancelled before the pipeline had ended."""
    DONE = 3
    """It has an outcome: a response, the head of a stream of responses, or an error."""


class RunningRpc(grpc.RpcError, grpc.Call, Future):
    """An RPC in progress: `grpc.Call`, `grpc.Future` and `grpc.RpcError` at once, as those that grpc returns are.

    `cancel` ends it in flight, in a queue, and in the wait before an attempt. Callbacks run after every permit has been
    released. An exception that a callback raises is logged once. `cancel` does not interrupt callbacks.

    Args:
        attempts: makes the attempts.
    """

    def __init__(self, attempts: SyncAttempts) -> None:
        self._guard = attempts.guard
        self._mutex = make_lock()
        self._stop = threads.StopToken()
        self._state = RpcState.RUNNING
        self._outcome: Any = None
        self._in_flight: set[Any] = set()
        self._callbacks = Callbacks()
        self._wakes: list[Callable[[], object]] = []
        self._attempt: Any = None
        self._begun = 0
        self._deadline = FOREVER

    @abstractmethod
    def attempt(self, call: Any) -> Any:
        """Make an attempt and return its result; the function that the pipeline calls."""

    @abstractmethod
    def _outcome_of_result(self, result: Any) -> Any:
        """Return the outcome for the result of the pipeline."""

    @abstractmethod
    def _ended(self) -> None:
        """Called on the thread of the pipeline when the outcome is set and the waiting threads are awake."""

    def start(self, call: BaseRpcCall) -> None:
        """Start the RPC; called once, by the interceptor that created it."""
        self._deadline = call.deadline
        self._guard.running.add(self)
        threads.start(lambda: self._run(call), self._stop)

    def close(self) -> None:
        """End the waits of the RPC, since its channel was closed. grpc cancels what is in flight."""
        self._stop.stop()

    @contextlib.contextmanager
    def _tracked(self, attempt: Any) -> Any:
        """Have `cancel` cancel an attempt for the length of a block."""
        with self._mutex:
            self._in_flight.add(attempt)
            self._attempt = attempt
            self._begun += 1
            stopped = self._stop.stopped
        try:
            if stopped:
                cancel_quietly(attempt)
            self._wake()
            yield
        finally:
            self._in_flight.discard(attempt)
            del attempt  # it may be an error, whose traceback holds this frame

    def _run(self, call: BaseRpcCall) -> None:
        """Make the RPC; the function of its thread."""
        outcome = self._make_outcome(call)
        with self._mutex:
            self._outcome = _cancelled() if self._state is RpcState.CANCELLED else outcome
            if self._state is RpcState.RUNNING:
                self._state = RpcState.DONE  # set after the outcome, since readers do not take the lock
            self._attempt = None
        self._guard.running.discard(self)
        self._wake()
        self._ended()

    def _make_outcome(self, call: BaseRpcCall) -> Any:
        """Pass the call through the pipeline and return its outcome."""
        try:
            return self._outcome_of_result(self._guard.run(call))
        except threads.Stopped:
            return LocalRpcError(grpc.StatusCode.CANCELLED, CLOSED)
        except BaseException as error:
            # The traceback holds frames of this thread, which hold the RPC, which will hold the error: a cycle.
            return outcome_of(error.with_traceback(None) if isinstance(error, grpc.RpcError) else error)
        finally:
            threads.stopping.set(None)  # cancelling the RPC must not interrupt its callbacks

    def _wake(self) -> None:
        """Wake the threads that wait for an attempt or for the end of the pipeline."""
        with self._mutex:
            wakes, self._wakes = self._wakes, []
        for wake in wakes:
            with contextlib.suppress(RuntimeError):  # the waiting thread was stopped at this moment, and is awake
                wake()

    def add_waker(self, wake: Callable[[], object], begun: int) -> bool:
        """Have `wake` called when another attempt begins, or the pipeline ends.

        Return False, and do not call it, if more than `begun` attempts have begun, or the pipeline has ended.
        """
        with self._mutex:
            if self._state is not RpcState.RUNNING or self._begun > begun:
                return False
            self._wakes.append(wake)
            return True

    def remove_waker(self, wake: Callable[[], object]) -> None:
        """Remove what `add_waker` has added, if it is still there."""
        with self._mutex, contextlib.suppress(ValueError):
            self._wakes.remove(wake)

    def _wait(self, timeout: float | None = None) -> Any:
        """Wait for the end of the pipeline and return the outcome; that of a cancelled RPC has the code CANCELLED.

        Raises:
            grpc.FutureTimeoutError: it has not ended within `timeout` seconds.
        """
        if self._is_running():
            until = FOREVER if timeout is None else clock.monotonic() + timeout
            self._park(until)
            while self._is_running():
                if clock.monotonic() >= until:
                    raise grpc.FutureTimeoutError
                self._park(until, self._begun)
        return _cancelled() if self._state is RpcState.CANCELLED else self._outcome

    def _is_running(self) -> bool:
        """Return whether the pipeline has not ended, and the RPC was not cancelled."""
        return self._state is RpcState.RUNNING

    def _park(self, until: float, begun: int = 0) -> None:
        """Wait until more than `begun` attempts have begun, the pipeline has ended, or until that time."""
        waiter = _Waiter(self, begun)
        try:
            threads.park(waiter, until)
        finally:
            waiter.remove()

    def _wait_for_result(self, timeout: float | None) -> tuple[Any, float | None]:
        """Wait for the end of the pipeline and return the outcome, and the seconds that are left of `timeout`."""
        until = None if timeout is None else clock.monotonic() + timeout
        outcome = self._wait(timeout)
        if self._state is RpcState.CANCELLED:
            raise grpc.FutureCancelledError
        return outcome, None if until is None else max(0.0, until - clock.monotonic())

    def _cancel_pipeline(self) -> bool:
        """Cancel the RPC if its pipeline has not ended, so that no further attempt is made; return whether it did."""
        with self._mutex:
            if self._state is not RpcState.RUNNING:
                return False
            self._state = RpcState.CANCELLED
            self._stop.stop()
            in_flight = list(self._in_flight)
        for attempt in in_flight:
            cancel_quietly(attempt)
        self._wake()
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the response and return it, or raise the error of the RPC.

        Args:
            timeout: the seconds to wait; None for no limit. The RPC continues after it.

        Raises:
            grpc.FutureTimeoutError: the RPC was not done within `timeout` seconds.
            grpc.FutureCancelledError: the RPC was cancelled.
        """
        outcome, left = self._wait_for_result(timeout)
        return outcome.result(left)

    def exception(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the error, or None if the RPC succeeded; `timeout` and Raises as in `result`."""
        outcome, left = self._wait_for_result(timeout)
        return outcome.exception(left)

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Wait for the end and return the traceback of the error, or None if the RPC succeeded; see `result`."""
        outcome, left = self._wait_for_result(timeout)
        traceback: TracebackType | None = outcome.traceback(left)
        return traceback

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have `fn` called with this RPC when it is done; it is called at once if it is done already."""
        if not self.add_callback(lambda: fn(self)):
            fn(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the RPC is done; return False, and do not call it, if it is done already."""
        return self._callbacks.add(callback)

    def is_active(self) -> bool:
        """Return whether the RPC is neither done nor cancelled."""
        return self.running()

    def time_remaining(self) -> Any:
        """Return the seconds until the caller's `timeout=` or ambient deadline, for all attempts; None without one."""
        return None if self._deadline == FOREVER else max(0.0, self._deadline - clock.monotonic())

    def code(self) -> Any:
        """Wait for the end and return the status code."""
        return self._wait().code()

    def details(self) -> Any:
        """Wait for the end and return the details of the status."""
        return self._wait().details()

    def initial_metadata(self) -> Any:
        """Wait for the initial metadata of the attempt that gives the outcome, and return it."""
        return self._wait().initial_metadata()

    def trailing_metadata(self) -> Any:
        """Wait for the end and return the trailing metadata of the attempt that gave the outcome."""
        return self._wait().trailing_metadata()

    def debug_error_string(self) -> str:
        """Wait for the end and return grpc's debug string; an empty string if the outcome was not made by grpc."""
        method: Any = getattr(self._wait(), "debug_error_string", None)
        text: str | None = None if method is None else method()
        return text or ""

    def __repr__(self) -> str:
        code = None if self.running() else code_of(self._wait())
        return f"<{type(self).__name__}: {'in progress' if code is None else code.name}>"

    __str__ = __repr__


def cancel_quietly(attempt: Any) -> None:
    """Cancel an attempt, as far as it can be: other interceptors may have made a plain generator of it."""
    cancel: Any = getattr(attempt, "cancel", None) or getattr(attempt, "close", None)
    if cancel is not None:
        with contextlib.suppress(Exception):
            cancel()


def _cancelled() -> LocalRpcError:
    return LocalRpcError(grpc.StatusCode.CANCELLED, CANCELLED)


class _Waiter:
    """One wait for an RPC. `remove` removes its waker if the wait ends before it is called."""

    def __init__(self, rpc: RunningRpc, begun: int) -> None:
        self._rpc = rpc
        self._begun = begun
        self._wake: Callable[[], object] | None = None

    def add_waker(self, wake: Callable[[], object]) -> bool:
        self._wake = wake
        return self._rpc.add_waker(wake, self._begun)

    def remove(self) -> None:
        if self._wake is not None:
            self._rpc.remove_waker(self._wake)
