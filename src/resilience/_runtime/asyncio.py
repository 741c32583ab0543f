"""Waits in asyncio tasks, on any event loop, and their cancellation at a deadline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from resilience._call import callables, deadline_errors
from resilience._call.callables import PLAIN_TYPES
from resilience._call.running_call import INHERITED, DeadlineSource, RunningCall, Wakeable
from resilience._util.clock import FOREVER, TIMED_OUT, TimerHandle, ambient_deadline, clock
from resilience._util.locks import members


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


class _DeadlineCancel:
    """The cancellation of one attempt at its deadline."""

    __slots__ = ("_before", "_task", "fired")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = ref(task)  # weak: the timer must not keep alive a task of an abandoned loop
        self._before = task.cancelling()
        self.fired = False

    def fire(self) -> None:
        """Cancel the task. Keep the message of a cancellation from outside: anyio recognizes its own by it."""
        task = self._task()
        if task is not None:
            self.fired = True
            other = task.cancelling() > self._before
            task.cancel(getattr(task, "_cancel_message", None) if other else None)

    def caused(self, error: BaseException | None) -> bool:
        """Uncancel the task; return whether `error` was caused by this cancellation, not by one from outside."""
        task = self._task()
        left = 0 if task is None else task.uncancel()
        possible = isinstance(error, asyncio.CancelledError | Exception | BaseExceptionGroup)
        return possible and left <= self._before


class _DeadlineTimer:
    """The single timer of a loop for all attempts whose deadlines have the same source.

    Deadlines mostly come in the order in which attempts start, so the first entry is usually the next to be cancelled;
    otherwise the entries are sorted when the timer fires. The timer is armed lazily: an attempt that ends before its
    deadline, as most do, costs only an entry in a dict.
    """

    __slots__ = ("__weakref__", "_alarm", "_armed", "_cancels", "_last", "_ordered", "_waited", "busy_until", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: ReferenceType[asyncio.AbstractEventLoop] = ref(loop)
        self._cancels: dict[_DeadlineCancel, float] = {}
        self._armed = FOREVER
        self._alarm: Callable[[], TimerHandle | None] = _nothing
        self._last = 0.0
        self._ordered = True
        self._waited = False
        self.busy_until = 0.0

    def add(self, cancel: _DeadlineCancel, at: float) -> None:
        """Cancel an attempt at that time."""
        if at < self._last and self._cancels:
            self._ordered = False
        self._last = at
        self._cancels[cancel] = at
        if at < self._armed:
            self._arm(at)

    def discard(self, cancel: _DeadlineCancel) -> None:
        """Remove an attempt that has ended. Virtual time must not advance to a deadline without an attempt."""
        self._cancels.pop(cancel, None)
        if not self._cancels and not clock.real:
            self._disarm()

    def _arm(self, at: float) -> None:
        self._disarm()
        self._waited = False
        self._armed = at
        alarm = clock.alarm(at, self._ring)
        if alarm is None:
            left = max(0.0, at - clock.monotonic())
            alarm = asyncio.get_running_loop().call_later(left, self._ring)
        self._alarm = _weakly(alarm)

    def _disarm(self) -> None:
        alarm = self._alarm()
        self._alarm = _nothing
        self._armed = FOREVER
        if alarm is not None:
            alarm.cancel()

    def _ring(self) -> None:
        """Cancel what is due: first inner calls with an inherited deadline, then, after MOMENT, the calls around them.

        Without the delay, an inner call would take the cancellation of the outer one for one from outside.
        """
        self._armed = FOREVER
        self._alarm = _nothing
        now = clock.monotonic()
        inner = _timer_of(INHERITED)
        inner.cancel_due(now)
        if inner is not self and not self._waited and now < inner.busy_until:
            self._arm(now + MOMENT)
            self._waited = True
            return
        self._waited = False
        if inner is not self:
            self.cancel_due(now)

    def cancel_due(self, now: float) -> None:
        """Cancel what is due, and arm the timer for the next deadline."""
        if not self._ordered:
            self._cancels = dict(sorted(members(self._cancels.items()), key=_when))
            self._ordered = True
            self._last = max(self._cancels.values(), default=0.0)
        for cancel, at in members(self._cancels.items()):
            if at > now:
                self._arm(at)
                break
            # Cancelling one task may finalize another one, whose entry is removed then.
            if self._cancels.pop(cancel, None) is not None:
                cancel.fire()
                self.busy_until = now + MOMENT


MOMENT = 0.001
"""Seconds that inner calls get to unwind."""


def _nothing() -> None:
    return None


def _weakly(alarm: TimerHandle) -> Callable[[], TimerHandle | None]:
    """Return a weak reference to a timer, so that its loop is not kept alive; a strong one if it supports no other."""
    try:
        return ref(alarm)
    except TypeError:
        return lambda: alarm


def _when(item: tuple[_DeadlineCancel, float]) -> float:
    return item[1]


_timers: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakKeyDictionary[DeadlineSource, _DeadlineTimer]] = (
    WeakKeyDictionary()
)


def _timer_of(source: DeadlineSource) -> _DeadlineTimer:
    loop = asyncio.get_running_loop()
    known: ReferenceType[_DeadlineTimer] | None = source.timer
    timer = None if known is None else known()
    if timer is None or timer.loop() is not loop:
        timer = _timers.setdefault(loop, WeakKeyDictionary()).setdefault(source, _DeadlineTimer(loop))
        source.timer = ref(timer)
    return timer


async def call_with_deadline(call: RunningCall, value: Awaitable[Any] | None = None) -> Any:
    """Call and await the user's function, or await `value`, and cancel it at the call's deadline."""
    if call.cancel_via_anyio:
        return await _call_in_anyio_scope(call, value)
    started = clock.monotonic()
    deadline = call.deadline
    if started >= deadline and value is None:
        raise deadline_errors.expired_error(call)
    task = asyncio.current_task()
    assert task is not None, "an asyncio coroutine runs in a task"
    cancel = _DeadlineCancel(task)
    timer = _timer_of(call.deadline_source)
    before = ambient_deadline.get()
    try:
        ambient_deadline.set(deadline)
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
        elif isinstance(error, Exception) and clock.monotonic() >= deadline and call.caused_by_deadline(error):
            raise deadline_errors.cut_error(call, started) from error  # an inner call had this deadline
        raise
    finally:
        timer.discard(cancel)
        if ambient_deadline.get() == deadline:  # not if a garbage-collected coroutine is closed in another context
            ambient_deadline.set(before)
    if cancel.fired:
        cancel.caused(None)
        raise deadline_errors.late_result(call, started, result)
    if clock.monotonic() >= deadline:
        raise deadline_errors.late_result(call, started, result)
    return result


async def _call_in_anyio_scope(call: RunningCall, value: Awaitable[Any] | None) -> Any:
    """Do as `call_with_deadline` with a cancel scope of anyio, for clients that shield their clean-up with one."""
    import anyio

    started = clock.monotonic()
    deadline = call.deadline
    if started >= deadline and value is None:
        raise deadline_errors.expired_error(call)
    before = ambient_deadline.get()
    result: Any = None
    scope = anyio.CancelScope(deadline=anyio.current_time() + deadline - started)
    try:
        ambient_deadline.set(deadline)
        with scope:
            if value is None:
                call.calls_made += 1
                result = await call.function(*call.args, **call.kwargs)
            else:
                result = await value
    except Exception as error:
        if scope.cancel_called or (
            clock.monotonic() >= deadline and call.caused_by_deadline(error)
        ):  # caused by the deadline
            raise deadline_errors.cut_error(call, started) from error
        raise
    finally:
        if ambient_deadline.get() == deadline:  # not if a garbage-collected coroutine is closed in another context
            ambient_deadline.set(before)
    if scope.cancelled_caught:
        raise deadline_errors.cut_error(call, started)
    if clock.monotonic() >= deadline:
        raise deadline_errors.late_result(call, started, result)
    return result


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


def current_task() -> object:
    """Return the running task."""
    return asyncio.current_task()


def in_a_task() -> bool:
    """Return whether a task of an event loop is running in this thread."""
    return asyncio._get_running_loop() is not None and asyncio.current_task() is not None
