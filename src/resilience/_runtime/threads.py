"""Waiting in a thread, and calling in one that can be left behind."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from resilience._call import callables, deadline_errors
from resilience._call.callables import PLAIN_TYPES
from resilience._call.running_call import RunningCall, Wakeable
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import Ending, EndingKind
from resilience._util.clock import FOREVER, ambient_deadline, clock
from resilience.errors import CarriedResult


def park(waiter: Wakeable, until: float) -> None:
    """Wait in a queue until woken, or until that time."""
    _wait(clock.park, waiter, until)


def sleep(waiter: Wakeable, until: float) -> None:
    """Sleep between two attempts until that time, or until woken."""
    _wait(clock.sleep, waiter, until)


def _wait(wait: Callable[[threading.Lock, float], bool], waiter: Wakeable, until: float) -> None:
    lock = threading.Lock()
    lock.acquire()
    if waiter.add_waker(lock.release):
        seconds = FOREVER if until == FOREVER else until - clock.monotonic()
        stop = stopping.get()
        if stop is None:
            wait(lock, seconds)
        else:
            stop.wait(wait, lock, seconds)


class Stopped(BaseException):
    """The thread was told to stop, as a task is that is cancelled: nobody's failure, and never retried."""


class StopToken:
    """Ends the waits of threads of our own from outside: those that wait, now or later, raise `Stopped`."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._bells: set[threading.Lock] = set()
        self.stopped = False

    def stop(self) -> None:
        """Have them stop."""
        with self._mutex:
            self.stopped = True
            bells = list(self._bells)
        for bell in bells:
            with contextlib.suppress(RuntimeError):  # it has just been woken by what it waited for
                bell.release()

    def wait(self, wait: Callable[[threading.Lock, float], bool], bell: threading.Lock, seconds: float) -> None:
        """Wait, unless told to stop."""
        try:
            with self._mutex:
                told = self.stopped
                self._bells.add(bell)
            if not told:
                wait(bell, seconds)
        finally:
            with self._mutex:
                self._bells.discard(bell)
        if self.stopped:
            raise Stopped


stopping: ContextVar[StopToken | None] = ContextVar("resilience_stop", default=None)
"""What ends the waits in this context; None in threads that are not ours."""


def start(function: Callable[[], object], stop: StopToken) -> None:
    """Run a function on a thread of its own, in a copy of this context. It does not keep the process from ending."""
    context = contextvars.copy_context()
    context.run(stopping.set, stop)
    threading.Thread(target=context.run, args=(function,), name="resilience-future", daemon=True).start()


def call_with_deadline(call: RunningCall) -> Any:
    """Call the user's function with the call's deadline as the ambient one. Nobody can cut it: it may be late."""
    started = clock.monotonic()
    deadline = call.deadline
    if started >= deadline:
        raise deadline_errors.expired_error(call)
    try:
        ambient_deadline.set(deadline)
        call.calls_made += 1
        named = call.kwargs  # an empty mapping would be copied
        result = call.function(*call.args, **named) if named else call.function(*call.args)
    except Exception as error:
        if clock.monotonic() >= call.deadline and call.caused_by_deadline(error):  # what is further in had our deadline
            raise deadline_errors.cut_error(call, started) from error
        raise
    finally:
        # Not reset(): a Ctrl-C between set() and the assignment of its token would lose that.
        ambient_deadline.set(call.entry_deadline)
    if result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function):
        raise callables.unawaited(result, call.function)
    if clock.monotonic() >= deadline:
        raise deadline_errors.late_result(call, started, result)
    return result


def effective_deadline() -> float:
    """Threads have no cancel scopes."""
    return FOREVER


class ThreadCall:
    """A part of a call that a thread of its own does, so that it can be left behind.

    Args:
        step: what is to be done with the call.
        call: the call; the thread works on a copy.
    """

    def __init__(self, step: Callable[[RunningCall], Any], call: RunningCall) -> None:
        self._step = step
        self._call = call
        self._copy = call.copy()
        self._result: Any = None
        self._error: BaseException | None = None
        self.abandoned: DeferredSettlement | None = None
        """What ends with the thread, if it was abandoned."""
        self._bell = threading.Lock()
        self._bell.acquire()
        self._mutex = threading.Lock()
        self._finished = False

    def start(self) -> None:
        """Start the thread, in a copy of this context. It does not keep the process from ending."""
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._work,), name="resilience-thread-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise  # the system has no thread for it
        except BaseException:
            self._abandon()  # a Ctrl-C came as it started
            raise

    def _work(self) -> None:
        try:
            self._result = self._step(self._copy)
        except BaseException as error:
            self._error = error
        with self._mutex:
            self._finished = True
            abandoned = self.abandoned
            self._copy.ending = None  # it holds the exception, whose frames hold the call
        self._bell.release()
        if abandoned is not None:
            if isinstance(self._error, CarriedResult):
                self._result = self._error.result
            self._error = None
            try:
                self._copy.dispose(self._result)
            finally:
                further = self._copy.deferred  # a thread further in may still hang
                if further is None or further.ended:
                    abandoned.end(Ending(EndingKind.TIMED_OUT))
                else:
                    further.add(abandoned.end)

    def wait(self, until: float) -> bool:
        """Wait for it to be done until that time; returns whether it is. Otherwise it is left behind."""
        if not self._call.add_waker(self._copy.stop_retrying):  # a drain ends the waits of the thread, too
            self._copy.stop_retrying()
        try:
            clock.park(self._bell, FOREVER if until == FOREVER else until - clock.monotonic())
        finally:
            self._abandon()
            self._call.calls_made = self._copy.calls_made
        return self.abandoned is None

    def _abandon(self) -> None:
        """Let it go on alone, unless it is done."""
        abandoned = DeferredSettlement(known=True)  # made outside of the mutex: nothing may be finalized within
        with self._mutex:
            if not self._finished:
                self._call.deferred = self.abandoned = abandoned

    def outcome(self) -> Any:
        """Return, or raise, what came of it."""
        self._call.deferred = self._copy.deferred
        error = self._error
        if error is None:
            return self._result
        self._error = None
        try:
            raise error
        finally:
            del error  # its traceback holds this frame
