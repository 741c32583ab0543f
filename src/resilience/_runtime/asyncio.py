"""Waits in asyncio tasks, on any event loop, and their cancellation at a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from types import CoroutineType, coroutine
from typing import Any

from resilience._call import callables, deadline_errors
from resilience._call.ambient import Ambient, ambient
from resilience._call.callables import PLAIN_TYPES
from resilience._call.running_call import INHERITED, RunningCall, Wakeable
from resilience._runtime.asyncio_race import race as race
from resilience._runtime.asyncio_timer import DeadlineCancel, PatientCancel, timer_of
from resilience._util.clock import FOREVER, TIMED_OUT, TimerHandle, clock

CANCELLED = asyncio.CancelledError
"""What a cancelled task raises."""


class _Waiter:
    """A wait in an event loop, until woken from any thread, or until a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, until: float) -> None:
        self._loop = loop
        self._until = until
        self._timer: TimerHandle | None = None
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        # A signal handler or a finalizer may run in the loop itself just before its select(): then only
        # call_soon_threadsafe wakes it.
        if asyncio._get_running_loop() is self._loop and asyncio.current_task() is not None:
            self.done()
        else:
            self._loop.call_soon_threadsafe(self.done)

    def done(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def arm(self) -> None:
        left = self._until - clock.monotonic()
        if left > 0:  # a timer of an event loop may fire early by the clock's resolution
            self._timer = clock.alarm(self._until, self.arm) or self._loop.call_later(left, self.arm)
        else:
            self.done()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def park(waiter: Wakeable, until: float) -> None:
    """Wait until woken, from any thread, or until that time."""
    wait = _Waiter(asyncio.get_running_loop(), until)
    if waiter.add_waker(wait.wake):
        if until != FOREVER:
            wait.arm()
        try:
            await wait.future
        finally:
            wait.disarm()


async def call_with_deadline(call: RunningCall, value: Awaitable[Any] | None = None) -> Any:
    """Call and await the user's function, or await `value`, and cancel it at the call's deadline."""
    started = clock.monotonic()
    deadline = call.deadline
    if started >= deadline and value is None:
        raise deadline_errors.expired_error(call)
    loop = asyncio.get_running_loop()  # on Python 3.11 it takes a system call
    task = asyncio.current_task(loop)
    assert task is not None, "an asyncio coroutine runs in a task"
    own = call.inside = Ambient.make(FOREVER if call.deadline_source is INHERITED else deadline, call.ambient)
    cancel = PatientCancel(task, own) if call.respects_shields else DeadlineCancel(task, own)
    call.cancellations = cancel.before
    timer = timer_of(call.deadline_source, loop)
    try:
        ambient.set(own)
        timer.add(cancel, deadline)
        if value is None:
            call.calls_made += 1
            kwargs = call.kwargs  # an empty mapping would be copied
            result = call.function(*call.args, **kwargs) if kwargs else call.function(*call.args)
        else:
            result = value
        if result.__class__ is CoroutineType or (
            result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function)
        ):
            result = await result
    except BaseException as error:
        if cancel.fired:
            if cancel.caused(error):
                raise deadline_errors.cut_error(call, started) from error
        elif (
            isinstance(error, Exception)
            and clock.monotonic() >= call.current_deadline()
            and call.caused_by_deadline(error)
        ):  # an inner call had this deadline
            raise deadline_errors.cut_error(call, started) from error
        raise
    finally:
        timer.discard(cancel)
        own.at = FOREVER  # not by a method: a Ctrl-C may come before its first step
        own.live = False
        if own.followers is not None:
            own.release()
    if cancel.fired:
        cancel.caused(None)
        raise deadline_errors.late_result(call, started, result)
    if clock.monotonic() >= deadline and clock.monotonic() >= call.current_deadline():
        raise deadline_errors.late_result(call, started, result)
    return result


@coroutine
def checkpoint() -> Generator[None]:
    """Let other tasks run."""
    yield  # what a task of asyncio awaits for that


def task_starter() -> Callable[[Callable[[], Awaitable[object]]], object]:
    """Return a function that starts a task in the running loop, from any thread."""
    return partial(_start_soon, asyncio.get_running_loop())


def _start_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_start, loop, function)


def _start(loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[object]]) -> None:
    task = loop.create_task(_quietly(function))
    _started.add(task)
    task.add_done_callback(_started.discard)


async def _quietly(function: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(Exception):
        await function()


_started: set[asyncio.Task[None]] = set()
"""The running tasks that `task_starter` has started: a loop keeps only weak references to its tasks."""


async def await_until(until: float, value: Awaitable[Any]) -> Any:
    """Await a value until that time; return TIMED_OUT if it was cancelled then."""
    import anyio

    with anyio.CancelScope(deadline=anyio.current_time() + until - clock.monotonic()):
        return await value
    return TIMED_OUT


def effective_deadline() -> float:
    """Return the deadline of anyio's cancel scopes around the running task, on the library's clock."""
    anyio: Any = sys.modules.get("anyio")
    if anyio is None or not in_a_task():
        return FOREVER
    at: float = anyio.current_effective_deadline()
    return at if at in (FOREVER, -FOREVER) else at - asyncio.get_running_loop().time() + clock.monotonic()


def loop_is_running() -> bool:
    """Return whether an event loop runs in this thread."""
    return asyncio._get_running_loop() is not None


def in_a_task() -> bool:
    """Return whether a task of an event loop is running in this thread."""
    return asyncio._get_running_loop() is not None and asyncio.current_task() is not None
