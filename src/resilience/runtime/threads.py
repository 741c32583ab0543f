"""Waiting in a thread, and calling in one that can be left behind."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from types import GeneratorType
from typing import Any

from resilience import misuse, timing
from resilience.call import Call, Waiter
from resilience.clock import FOREVER, ambient, inherited
from resilience.ending import Ending, EndingKind
from resilience.errors import DeadlineExceededError
from resilience.settling import Deferred


def park(waiter: Waiter, until: float) -> None:
    """Wait in a queue until woken, or until that time."""
    _wait(ambient.park, waiter, until)


def sleep(waiter: Waiter, until: float) -> None:
    """Sleep between two attempts until that time, or until woken."""
    _wait(ambient.sleep, waiter, until)


def _wait(wait: Callable[[threading.Lock, float], bool], waiter: Waiter, until: float) -> None:
    lock = threading.Lock()
    lock.acquire()
    if waiter.park(lock.release):
        wait(lock, FOREVER if until == FOREVER else until - ambient.monotonic())


def in_time(call: Call) -> Any:
    """Call the user's function with the call's deadline as the ambient one. Nobody can cut it: it may be late."""
    started = ambient.monotonic()
    if started >= call.deadline:
        raise timing.expired(call)
    before = inherited.get()
    try:
        inherited.set(call.deadline)
        call.made += 1
        result = call.function(*call.args, **call.kwargs)
    except DeadlineExceededError as error:
        if ambient.monotonic() >= call.deadline:  # what is further in had our deadline
            raise timing.cut(call, started) from error
        raise
    finally:
        inherited.set(before)  # not reset(): a Ctrl-C between set() and its assignment would lose the token
    if hasattr(result.__class__, "__await__"):
        raise misuse.unawaited(result, call.function)
    if result.__class__ is GeneratorType:
        misuse.refuse_generator(call.function)
    if ambient.monotonic() >= call.deadline:
        raise timing.late(call, result)
    return result


def effective_deadline() -> float:
    """Threads have no cancel scopes."""
    return FOREVER


class Errand:
    """A part of a call that a thread of its own does, so that it can be left behind.

    Args:
        step: what is to be done with the call.
        call: the call; the thread works on a copy.
    """

    def __init__(self, step: Callable[[Call], Any], call: Call) -> None:
        self._step = step
        self._call = call
        self._copy = call.copy()
        self._result: Any = None
        self._error: BaseException | None = None
        self.left: Deferred | None = None
        """What ends with the thread, if it was left behind."""
        self._bell = threading.Lock()
        self._bell.acquire()
        self._mutex = threading.Lock()
        self._finished = False

    def start(self) -> None:
        """Start the thread, in a copy of this context. It does not keep the process from ending."""
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._work,), name="resilience-errand", daemon=True).start()

    def _work(self) -> None:
        try:
            self._result = self._step(self._copy)
        except BaseException as error:
            self._error = error
        with self._mutex:
            self._finished = True
            left = self.left
        self._bell.release()
        if left is not None:
            self._error = None
            left.end(Ending(EndingKind.TIMED_OUT))

    def wait(self, until: float) -> bool:
        """Wait for it to be done until that time; returns whether it is. Otherwise it is left behind."""
        try:
            ambient.park(self._bell, FOREVER if until == FOREVER else until - ambient.monotonic())
        finally:
            with self._mutex:
                if not self._finished:
                    self._call.deferred = self.left = Deferred(known=True)
            self._call.made = self._copy.made
        return self.left is None

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
