"""Waiting in an asyncio task, on any event loop, and cutting it."""

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
    """A wait in a loop, until woken from whatever thread, or until some time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, until: float) -> None:
        self._loop = loop
        self._until = until
        self._timer: TimerHandle | None = None
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        # A signal handler or a finaliser may interrupt the loop itself, which may be about to sleep: then only a call
        # that is meant for other threads wakes it.
        if asyncio._get_running_loop() is self._loop and asyncio.current_task() is not None:
            self.done()
        else:
            self._loop.call_soon_threadsafe(self.done)

    def done(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def arm(self) -> None:
        left = self._until - clock.monotonic()
        if left > 0:  # timers of an event loop may come early by the clock's resolution
            self._timer = clock.alarm(self._until, self.arm) or self._loop.call_later(left, self.arm)
        else:
            self.done()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def park(waiter: Wakeable, until: float) -> None:
    """Wait until woken, from whatever thread, or until that time."""
    nap = _Waiter(asyncio.get_running_loop(), until)
    if waiter.add_waker(nap.wake):
        if until != FOREVER:
            nap.arm()
        try:
            await nap.future
        finally:
            nap.disarm()


class _DeadlineCancel:
    """The cut that hangs over one attempt."""

    __slots__ = ("_before", "_task", "fired")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = ref(task)  # weak: a task that is dropped with its loop must not be kept by its own timer
        self._before = task.cancelling()
        self.fired = False

    def fire(self) -> None:
        """Cancel the task. If somebody else is cancelling it, too, their message is kept: anyio knows its own by it."""
        task = self._task()
        if task is not None:
            self.fired = True
            other = task.cancelling() > self._before
            task.cancel(getattr(task, "_cancel_message", None) if other else None)

    def ours(self, error: BaseException | None) -> bool:
        """Take the cancellation back; returns whether it is the reason for `error`, and not one from outside."""
        task = self._task()
        left = 0 if task is None else task.uncancel()
        ours = isinstance(error, asyncio.CancelledError | Exception | BaseExceptionGroup)
        return ours and left <= self._before


class _DeadlineTimer:
    """The one timer of a loop for all attempts under one limit.

    Their deadlines mostly come in the order in which the attempts start, so the first one is the next to be cut; where
    that does not hold, they are sorted when the timer rings. It is armed lazily: an attempt that is over in time, as
    most are, costs an entry in a dict.
    """

    __slots__ = ("__weakref__", "_alarm", "_armed", "_cuts", "_last", "_ordered", "_waited", "busy_until", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: ReferenceType[asyncio.AbstractEventLoop] = ref(loop)
        self._cuts: dict[_DeadlineCancel, float] = {}
        self._armed = FOREVER
        self._alarm: Callable[[], TimerHandle | None] = _nothing
        self._last = 0.0
        self._ordered = True
        self._waited = False
        self.busy_until = 0.0

    def add(self, cut: _DeadlineCancel, at: float) -> None:
        """Cut at that time."""
        if at < self._last and self._cuts:
            self._ordered = False
        self._last = at
        self._cuts[cut] = at
        if at < self._armed:
            self._arm(at)

    def discard(self, cut: _DeadlineCancel) -> None:
        """The attempt is over. Virtual time must not run on to a deadline that nobody has any more."""
        self._cuts.pop(cut, None)
        if not self._cuts and not clock.real:
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
        """Cut what is due. Those further in, whose deadline is an inherited one, go first, and get a moment to unwind.

        Otherwise the cut of the call around them would reach them as cancellation from outside, which nobody scores.
        """
        self._armed = FOREVER
        self._alarm = _nothing
        now = clock.monotonic()
        inside = _timer_of(INHERITED)
        inside.cut_due(now)
        if inside is not self and not self._waited and now < inside.busy_until:
            self._arm(now + MOMENT)
            self._waited = True
            return
        self._waited = False
        if inside is not self:
            self.cut_due(now)

    def cut_due(self, now: float) -> None:
        """Cut what is due, and arm for the next."""
        if not self._ordered:
            self._cuts = dict(sorted(members(self._cuts.items()), key=_when))
            self._ordered = True
            self._last = max(self._cuts.values(), default=0.0)
        for cut, at in members(self._cuts.items()):
            if at > now:
                self._arm(at)
                break
            # To cut one task may finalise another that was dropped, and whose cut is then gone.
            if self._cuts.pop(cut, None) is not None:
                cut.fire()
                self.busy_until = now + MOMENT


MOMENT = 0.001
"""Seconds for the calls further in to unwind."""


def _nothing() -> None:
    return None


def _weakly(alarm: TimerHandle) -> Callable[[], TimerHandle | None]:
    """Refer to an alarm without keeping its loop alive; some loops' alarms cannot be referred to like that."""
    try:
        return ref(alarm)
    except TypeError:
        return lambda: alarm


def _when(item: tuple[_DeadlineCancel, float]) -> float:
    return item[1]


_timers: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakKeyDictionary[DeadlineSource, _DeadlineTimer]] = (
    WeakKeyDictionary()
)


def _timer_of(limit: DeadlineSource) -> _DeadlineTimer:
    loop = asyncio.get_running_loop()
    known: ReferenceType[_DeadlineTimer] | None = limit.timer
    timer = None if known is None else known()
    if timer is None or timer.loop() is not loop:
        timer = _timers.setdefault(loop, WeakKeyDictionary()).setdefault(limit, _DeadlineTimer(loop))
        limit.timer = ref(timer)
    return timer


async def call_with_deadline(call: RunningCall, value: Awaitable[Any] | None = None) -> Any:
    """Call the user's function, or await `value`, and cut it at the call's deadline."""
    if call.cancel_via_anyio:
        return await _call_in_anyio_scope(call, value)
    started = clock.monotonic()
    deadline = call.deadline
    if started >= deadline and value is None:
        raise deadline_errors.expired_error(call)
    task = asyncio.current_task()
    assert task is not None, "an asyncio coroutine runs in a task"
    cut = _DeadlineCancel(task)
    timer = _timer_of(call.deadline_source)
    before = ambient_deadline.get()
    try:
        ambient_deadline.set(deadline)
        timer.add(cut, deadline)
        if value is None:
            call.calls_made += 1
            named = call.kwargs  # an empty mapping would be copied
            result = call.function(*call.args, **named) if named else call.function(*call.args)
        else:
            result = value
        if result.__class__ is CoroutineType or (
            result.__class__ not in PLAIN_TYPES and callables.is_awaitable(result, call.function)
        ):
            result = await result
    except BaseException as error:
        if cut.fired:
            if cut.ours(error):
                raise deadline_errors.cut_error(call, started) from error
        elif isinstance(error, Exception) and clock.monotonic() >= deadline and call.caused_by_deadline(error):
            raise deadline_errors.cut_error(call, started) from error  # what is further in had our deadline
        raise
    finally:
        timer.discard(cut)
        if ambient_deadline.get() == deadline:  # else a dropped coroutine is closed in another context
            ambient_deadline.set(before)
    if cut.fired:
        cut.ours(None)
        raise deadline_errors.late_result(call, started, result)
    if clock.monotonic() >= deadline:
        raise deadline_errors.late_result(call, started, result)
    return result


async def _call_in_anyio_scope(call: RunningCall, value: Awaitable[Any] | None) -> Any:
    """Do the same with a cancel scope of anyio, for clients that shield their clean-up with one."""
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
        ):  # it came of the cut
            raise deadline_errors.cut_error(call, started) from error
        raise
    finally:
        if ambient_deadline.get() == deadline:  # else a dropped coroutine is closed in another context
            ambient_deadline.set(before)
    if scope.cancelled_caught:
        raise deadline_errors.cut_error(call, started)
    if clock.monotonic() >= deadline:
        raise deadline_errors.late_result(call, started, result)
    return result


async def await_until(until: float, value: Awaitable[Any]) -> Any:
    """Await something until that time."""
    import anyio

    with anyio.CancelScope(deadline=anyio.current_time() + until - clock.monotonic()):
        return await value
    return TIMED_OUT


def effective_deadline() -> float:
    """Return when anyio's cancel scopes around the running task end, on the ambient clock."""
    anyio: Any = sys.modules.get("anyio")
    if anyio is None or not in_a_task():
        return FOREVER
    at: float = anyio.current_effective_deadline()
    return at if at in (FOREVER, -FOREVER) else at - asyncio.get_running_loop().time() + clock.monotonic()


def current_task() -> object:
    """Return the running task."""
    return asyncio.current_task()


def in_a_task() -> bool:
    """Return whether a task of an event loop runs in this thread."""
    return asyncio._get_running_loop() is not None and asyncio.current_task() is not None
