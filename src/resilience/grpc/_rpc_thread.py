"""The thread on which an RPC of the synchronous API passes through a pipeline, without blocking the caller."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any

import grpc

from resilience._runtime import threads
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import settle_from_finalizer
from resilience._util.locks import make_lock
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._callbacks import Callbacks
from resilience.grpc._failures import CANCELLED, CLOSED
from resilience.grpc._outcomes import LocalRpcError, outcome_of
from resilience.grpc._unary import SyncAttempts


class RpcState(Enum):
    """The states of the pipeline of an RPC."""

    RUNNING = 1
    """It has not ended, and the RPC was not cancelled."""
    CANCELLED = 2
    """The RPC was cancelled before the pipeline had ended."""
    DONE = 3
    """It has an outcome: a response, the head of a stream of responses, or an error."""


class RpcThread:
    """The pipeline of an RPC, on a thread of its own.

    The thread refers to this, and not to the object that the caller has, which cancels the RPC when it is dropped.

    Args:
        attempts: makes the attempts.

    Attributes:
        guard: the guard of the channel.
        state: the state of the pipeline.
        outcome: the outcome, if the state is DONE.
        latest: the latest attempt that has begun; None if there is none, or once the pipeline has ended.
        begun: how many attempts have begun.
        callbacks: the callbacks for the end of the RPC. They run after every permit has been released.
    """

    def __init__(self, attempts: SyncAttempts) -> None:
        self.guard = attempts.guard
        self._mutex = make_lock()
        self._stop = threads.StopToken()
        self._in_flight: set[Any] = set()
        self._wakes: list[Callable[[], object]] = []
        self.state = RpcState.RUNNING
        self.outcome: Any = None
        self.latest: Any = None
        self.begun = 0
        self.callbacks = Callbacks()

    @abstractmethod
    def attempt(self, call: Any) -> Any:
        """Make an attempt and return its result; the function that the pipeline calls."""

    @abstractmethod
    def _outcome_of_result(self, result: Any) -> Any:
        """Return the outcome for the result of the pipeline."""

    @abstractmethod
    def _ended(self) -> None:
        """Called on the thread when the outcome is set and the waiting threads are awake."""

    def start(self, call: BaseRpcCall) -> None:
        """Start the thread; called once."""
        self.guard.running.add(self)
        try:
            threads.start(lambda: self._run(call), self._stop)
        except BaseException:
            self.guard.running.discard(self)
            raise

    def close(self) -> None:
        """End the waits of the RPC, since its channel was closed. grpc cancels what is in flight."""
        self._stop.stop()

    @contextlib.contextmanager
    def _tracked(self, attempt: Any) -> Generator[None]:
        """Have `cancel` cancel an attempt for the length of a block."""
        with self._mutex:
            self._in_flight.add(attempt)
            self.latest = attempt
            self.begun += 1
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
        """Make the RPC; the function of the thread."""
        outcome = self._make_outcome(call)
        with self._mutex:
            self.outcome = cancelled_outcome() if self.state is RpcState.CANCELLED else outcome
            if self.state is RpcState.RUNNING:
                self.state = RpcState.DONE  # set after the outcome, since readers do not take the lock
            self.latest = None
            self._stop.stop()
            in_flight = list(self._in_flight)
        for attempt in in_flight:  # such as those that have lost a race
            cancel_quietly(attempt)
        self.guard.running.discard(self)
        self._wake()
        self._ended()

    def _make_outcome(self, call: BaseRpcCall) -> Any:
        """Pass the call through the pipeline and return its outcome."""
        try:
            return self._outcome_of_result(self.guard.run(call))
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
            if not self.is_running() or self.begun > begun:
                return False
            self._wakes.append(wake)
            return True

    def remove_waker(self, wake: Callable[[], object]) -> None:
        """Remove what `add_waker` has added, if it is still there."""
        with self._mutex, contextlib.suppress(ValueError):
            self._wakes.remove(wake)

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the end of the pipeline and return the outcome; that of a cancelled RPC has the code CANCELLED.

        Raises:
            grpc.FutureTimeoutError: it has not ended within `timeout` seconds.
        """
        if self.is_running():
            until = FOREVER if timeout is None else clock.monotonic() + timeout
            self._park(until)
            while self.is_running():
                if clock.monotonic() >= until:
                    raise grpc.FutureTimeoutError
                self._park(until, self.begun)
        return cancelled_outcome() if self.state is RpcState.CANCELLED else self.outcome

    def wait_for_attempt(self, begun: int) -> tuple[Any, int]:
        """Wait until more than `begun` attempts have begun; return the latest, None for none, and how many have."""
        self._park(FOREVER, begun)
        with self._mutex:
            return self.latest, self.begun

    def is_running(self) -> bool:
        """Return whether the pipeline has not ended, and the RPC was not cancelled."""
        return self.state is RpcState.RUNNING

    def _park(self, until: float, begun: int = 0) -> None:
        """Wait until more than `begun` attempts have begun, the pipeline has ended, or until that time."""
        waiter = _Waiter(self, begun)
        try:
            threads.park(waiter, until)
        finally:
            waiter.remove()

    def cancel(self) -> bool:
        """Cancel the RPC if its pipeline has not ended, so that no further attempt is made; return whether it did."""
        with self._mutex:
            if not self.is_running():
                return False
            self.state = RpcState.CANCELLED
            self._stop.stop()
            in_flight = list(self._in_flight)
        for attempt in in_flight:
            cancel_quietly(attempt)
        self._wake()
        return True

    def drop(self) -> None:
        """Cancel the RPC, since its caller has dropped it; for finalizers."""
        if self.is_running():
            settle_from_finalizer(self.cancel)


def cancel_quietly(attempt: Any) -> None:
    """Cancel an attempt, as far as it can be: other interceptors may have made a plain generator of it."""
    cancel: Any = getattr(attempt, "cancel", None) or getattr(attempt, "close", None)
    if cancel is not None:
        with contextlib.suppress(Exception):
            cancel()


def cancelled_outcome() -> LocalRpcError:
    """Return the outcome of an RPC that was cancelled."""
    return LocalRpcError(grpc.StatusCode.CANCELLED, CANCELLED)


class _Waiter:
    """One wait for an RPC. `remove` removes its waker if the wait ends before it is called."""

    def __init__(self, thread: RpcThread, begun: int) -> None:
        self._thread = thread
        self._begun = begun
        self._wake: Callable[[], object] | None = None

    def add_waker(self, wake: Callable[[], object]) -> bool:
        self._wake = wake
        return self._thread.add_waker(wake, self._begun)

    def remove(self) -> None:
        if self._wake is not None:
            self._thread.remove_waker(self._wake)
