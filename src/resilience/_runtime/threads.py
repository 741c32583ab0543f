"""Waits in threads, and calls on threads that can be abandoned."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

from resilience import _runtime
from resilience._call import callables, deadline_errors
from resilience._call.ambient import Ambient, ambient
from resilience._call.callables import PLAIN_TYPES
from resilience._call.running_call import INHERITED, RunningCall, Wakeable
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import Ending, EndingKind
from resilience._util.clock import FOREVER, clock
from resilience._util.locks import make_lock
from resilience._util.log_once import first_time, logger
from resilience.errors import CarriedResult


def park(waiter: Wakeable, until: float) -> None:
    """Wait in a queue until woken, or until that time."""
    _wait(clock.park, waiter, until)


def sleep(waiter: Wakeable, until: float) -> None:
    """Sleep between two attempts until that time, or until woken."""
    _wait(clock.sleep, waiter, until)


def _wait(wait: Callable[[threading.Lock, float], bool], waiter: Wakeable, until: float) -> None:
    """Wait by the clock's function `wait`; a StopToken of this context may end it."""
    lock = threading.Lock()
    lock.acquire()
    if waiter.add_waker(partial(_release, lock)):
        _tell_if_it_blocks_a_loop(waiter)
        seconds = FOREVER if until == FOREVER else until - clock.monotonic()
        stop = stopping.get()
        if stop is None:
            wait(lock, seconds)
        else:
            stop.wait(wait, lock, seconds)


def _release(lock: threading.Lock) -> None:
    """Release the lock that a thread waits for, also if it was released already: a waker may be called twice."""
    with contextlib.suppress(RuntimeError):
        lock.release()


def _tell_if_it_blocks_a_loop(waiter: object) -> None:
    """Log once for each operation that a wait blocks the event loop that runs in this thread."""
    if _runtime.loop_is_running():
        operation = waiter.operation if isinstance(waiter, RunningCall) else "a guarded call"
        if first_time("blocks a loop", operation):
            logger.warning(
                "%s waits in a thread with a running event loop, and blocks the loop meanwhile; use `await "
                "pipeline.acall(...)`, or decorate an `async def` (this is logged once)",
                operation,
            )


class Stopped(BaseException):
    """The thread was stopped by its StopToken, like a cancelled task. It is not a failure and never retried."""


class StopToken:
    """Stops the waits of threads that this library started: each wait, current or later, raises `Stopped`."""

    def __init__(self) -> None:
        self._mutex = make_lock()
        self._locks: set[threading.Lock] = set()
        self.stopped = False

    def stop(self) -> None:
        """End the current waits, and let later ones raise at once."""
        with self._mutex:
            self.stopped = True
            locks = list(self._locks)
        for lock in locks:
            with contextlib.suppress(RuntimeError):  # the wait has just ended by itself
                lock.release()

    def wait(self, wait: Callable[[threading.Lock, float], bool], lock: threading.Lock, seconds: float) -> None:
        """Wait until `lock` is released or for `seconds`.

        Raises:
            Stopped: `stop` was called, before or during the wait.
        """
        try:
            with self._mutex:
                self._locks.add(lock)
                stopped = self.stopped  # read last: a finalizer may call `stop` here
            if not stopped:
                wait(lock, seconds)
        finally:
            with self._mutex:
                self._locks.discard(lock)
        if self.stopped:
            raise Stopped


stopping: ContextVar[StopToken | None] = ContextVar("resilience_stop", default=None)
"""The StopToken of this context; None in threads that this library did not start."""


def start(function: Callable[[], object], stop: StopToken) -> None:
    """Run a function on a new daemon thread, in a copy of this context; `stop` ends its waits."""
    context = contextvars.copy_context()
    context.run(stopping.set, stop)
    work = clock.time.on_thread(function)
    threading.Thread(target=context.run, args=(work,), name="resilience-future", daemon=True).start()


def call_with_deadline(call: RunningCall) -> Any:
    """Call the user's function with the call's deadline as the ambient one.

    A plain function cannot be cancelled. If it returns after the deadline, its result is raised as a LateResult.
    """
    started = clock.monotonic()
    deadline = call.deadline
    if started >= deadline:
        raise deadline_errors.expired_error(call)
    own = call.inside = Ambient.make(FOREVER if call.deadline_source is INHERITED else deadline, call.ambient)
    try:
        ambient.set(own)
        call.calls_made += 1
        kwargs = call.kwargs  # an empty mapping would be copied
        result = call.function(*call.args, **kwargs) if kwargs else call.function(*call.args)
    except Exception as error:
        # An inner call had this deadline.
        if clock.monotonic() >= call.current_deadline() and call.caused_by_deadline(error):
            raise deadline_errors.cut_error(call, started) from error
        raise
    finally:
        own.at = FOREVER  # not by a method: a Ctrl-C may come before its first step
        own.live = False
        if own.followers is not None:
            own.release()
        if ambient.get() is not own:  # such as that of a generator which the function has left unfinished
            ambient.set(own)
    if result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function):
        raise callables.unawaited(result, call.function)
    if clock.monotonic() >= deadline and clock.monotonic() >= call.current_deadline():
        raise deadline_errors.late_result(call, started, result)
    return result


def checkpoint() -> None:
    """Do nothing: threads need not yield."""


def cancellations() -> int:
    """Return 0: threads are not cancelled."""
    return 0


def effective_deadline() -> float:
    """Return FOREVER: threads have no cancel scopes."""
    return FOREVER


class ThreadCall:
    """The inner part of a call, run on a thread of its own so that it can be abandoned at the deadline.

    Args:
        step: the chain inside, which is called with a copy of the call.
        call: the call.
    """

    def __init__(self, step: Callable[[RunningCall], Any], call: RunningCall) -> None:
        self._step = step
        self._call = call
        self._copy = call.copy()
        self._result: Any = None
        self._error: BaseException | None = None
        self.abandoned: DeferredSettlement | None = None
        """The settlement that ends with the thread, if it was abandoned; else None."""
        self._done = threading.Lock()
        self._done.acquire()
        self._mutex = make_lock()
        self._finished = False
        self._wake: Callable[[], object] | None = None

    def start(self) -> None:
        """Start the daemon thread, in a copy of this context."""
        context = contextvars.copy_context()
        work = clock.time.on_thread(self._work, self._done)
        thread = threading.Thread(target=context.run, args=(work,), name="resilience-thread-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise  # the system cannot start another thread
        except BaseException:
            self._abandon()  # a Ctrl-C arrived while it started
            raise

    def _work(self) -> None:
        """Run the step, and settle if the thread was abandoned in the meantime."""
        try:
            self._result = self._step(self._copy)
        except BaseException as error:
            self._error = error
        with self._mutex:
            self._finished = True
            abandoned = self.abandoned
            self._copy.ending = None  # it refers to the exception, whose frames refer to the call
            wake = self._wake
        self._done.release()
        if wake is not None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                wake()
        if abandoned is not None:
            if isinstance(self._error, CarriedResult):
                self._result = self._error.result
            self._error = None
            try:
                self._copy.dispose(self._result)
            finally:
                inner = self._copy.deferred  # an abandoned thread of an inner Timeout may still be running
                if inner is None or inner.ended:
                    abandoned.end(Ending(EndingKind.TIMED_OUT))
                else:
                    inner.add(abandoned.end)

    def wait(self, until: float) -> bool:
        """Wait for the thread until that time, then abandon it; return whether it has finished."""
        if not self._call.add_waker(self._copy.stop_retrying):  # a drain ends the waits of the thread, too
            self._copy.stop_retrying()
        _tell_if_it_blocks_a_loop(self._call)
        try:
            clock.park(self._done, FOREVER if until == FOREVER else until - clock.monotonic())
        finally:
            self._abandon()
            self._call.calls_made = self._copy.calls_made
            self._call.inside = self._copy.inside
        return self.abandoned is None

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Register a callback for the end of the thread; return False if it has finished."""
        with self._mutex:
            self._wake = wake
            return not self._finished

    def stop_waiting(self) -> bool:
        """Stop to wait for the thread, and abandon it unless it has finished; return whether it has."""
        self._abandon()
        return self.abandoned is None

    def _abandon(self) -> None:
        """Mark the thread as abandoned, unless it has finished."""
        abandoned = DeferredSettlement(known=True)  # made without the mutex: a finalizer may run here
        with self._mutex:
            if not self._finished:
                self._call.deferred = self.abandoned = abandoned

    @property
    def finished(self) -> bool:
        """Whether the thread has finished, so that it has an outcome."""
        return self._finished

    @property
    def calls_made(self) -> int:
        """How often the function has been called so far."""
        return self._copy.calls_made

    def outcome(self) -> Any:
        """Return the result of the thread, or raise its exception."""
        self._call.deferred = self._copy.deferred
        self._call.calls_made = self._copy.calls_made
        self._call.inside = self._copy.inside
        error = self._error
        if error is None:
            return self._result
        self._error = None
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame
