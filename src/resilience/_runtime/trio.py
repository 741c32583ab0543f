"""Waits in trio tasks, and their cancellation at a deadline."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from types import CoroutineType
from typing import Any

import trio

from resilience._call import callables, deadline_errors
from resilience._call.ambient import Ambient, ambient
from resilience._call.callables import PLAIN_TYPES
from resilience._call.running_call import INHERITED, RunningCall, Wakeable
from resilience._outcome.failure import leaves
from resilience._runtime.trio_race import race as race
from resilience._util.clock import FOREVER, TIMED_OUT, clock

CANCELLED = trio.Cancelled
"""What a cancelled task raises."""


async def park(waiter: Wakeable, until: float) -> None:
    """Wait until woken, from any thread, or until that time."""
    token = trio.lowlevel.current_trio_token()
    task = trio.lowlevel.current_task()
    sleeping = True

    def done() -> None:
        nonlocal sleeping
        if sleeping:
            sleeping = False
            trio.lowlevel.reschedule(task)

    def wake() -> None:
        # Not rescheduled at once, even in this thread: a signal handler or a finalizer may be the caller.
        token.run_sync_soon(done)

    def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
        nonlocal sleeping
        sleeping = False
        return trio.lowlevel.Abort.SUCCEEDED

    alarm = None
    try:
        if not waiter.add_waker(wake):
            return  # `wake` may still be called, and then has no effect
        alarm = None if until == FOREVER else clock.alarm(until, done)
        seconds = math.inf if until == FOREVER or alarm is not None else max(0.0, until - clock.monotonic())
        with trio.move_on_after(seconds):
            await trio.lowlevel.wait_task_rescheduled(abort)
    finally:
        sleeping = False
        if alarm is not None:
            alarm.cancel()


async def call_with_deadline(call: RunningCall, value: Awaitable[Any] | None = None) -> Any:
    """Call and await the user's function, or await `value`, and cancel it at the call's deadline."""
    started = clock.monotonic()
    deadline = call.deadline
    if started >= deadline and value is None:
        raise deadline_errors.expired_error(call)
    # The deadline is passed to the constructor, since setting it later costs as much as the scope itself.
    scope = trio.CancelScope(deadline=trio.current_time() + (deadline - started))
    alarm = None if clock.real or deadline == FOREVER else clock.alarm(deadline, partial(_cancel_if_due, scope, call))
    inherited = call.ambient.holding() if call.deadline_source is INHERITED else None
    own = call.inside = Ambient.make(deadline if inherited is None else FOREVER, call.ambient)
    result: Any = None
    try:
        if inherited is not None:
            inherited.follow(scope, partial(_extend, scope, call, trio.lowlevel.current_trio_token()))
        ambient.set(own)
        with scope:
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
    except Exception as error:
        if scope.cancel_called or (
            clock.monotonic() >= call.current_deadline() and call.caused_by_deadline(error)
        ):  # caused by the deadline
            raise deadline_errors.cut_error(call, started) from error
        raise
    except BaseException as error:
        # An inherited deadline: the call that set it cancels this task as well, which is no cancellation from outside.
        # It may do so a rounding error before this scope is due.
        due = scope.cancel_called or clock.monotonic() >= call.current_deadline()
        if inherited is not None and due and is_cancellation(error):
            raise deadline_errors.cut_error(call, started) from error
        raise
    finally:
        if alarm is not None:
            alarm.cancel()
        own.at = FOREVER  # not by a method: a Ctrl-C may come before its first step
        own.live = False
        if own.followers is not None:
            own.release()
        if inherited is not None:
            inherited.unfollow(scope)
    if scope.cancelled_caught:
        raise deadline_errors.cut_error(call, started)
    if clock.monotonic() >= deadline and clock.monotonic() >= call.current_deadline():
        raise deadline_errors.late_result(call, started, result)
    return result


def task_starter() -> Callable[[Callable[[], Awaitable[object]]], object]:
    """Return a function that starts a task in this run of trio, from any thread."""
    return partial(_start_soon, trio.lowlevel.current_trio_token())


def _start_soon(token: trio.lowlevel.TrioToken, function: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(trio.lowlevel.spawn_system_task, _quietly, function)


async def _quietly(function: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(Exception):
        await function()


def is_cancellation(error: BaseException) -> bool:
    """Return whether an exception is a cancellation: also as a group of such and of errors, as a nursery raises it."""
    return all(isinstance(leaf, trio.Cancelled | Exception) for leaf in leaves(error))


def _cancel_if_due(scope: trio.CancelScope, call: RunningCall) -> None:
    if clock.monotonic() >= call.current_deadline():
        scope.cancel()


def _extend(scope: trio.CancelScope, call: RunningCall, token: trio.lowlevel.TrioToken) -> None:
    """Give a scope with an inherited deadline the one that holds now; called when the former has become void."""
    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(_set_deadline, scope, call)


def _set_deadline(scope: trio.CancelScope, call: RunningCall) -> None:
    scope.deadline = trio.current_time() + call.current_deadline() - clock.monotonic()


async def checkpoint() -> None:
    """Let other tasks run."""
    await trio.lowlevel.checkpoint()


async def await_until(until: float, value: Awaitable[Any]) -> Any:
    """Await a value until that time; return TIMED_OUT if it was cancelled then."""
    scope = trio.CancelScope()
    alarm = None if clock.real else clock.alarm(until, scope.cancel)
    if alarm is None:
        scope.deadline = trio.current_time() + (until - clock.monotonic())
    try:
        with scope:
            return await value
    finally:
        if alarm is not None:
            alarm.cancel()
    return TIMED_OUT


def effective_deadline() -> float:
    """Return the deadline of the cancel scopes around the running task, on the library's clock."""
    at = trio.current_effective_deadline()
    return at if at in (FOREVER, -FOREVER) else at - trio.current_time() + clock.monotonic()


def in_a_task() -> bool:
    """Return whether a task is running in this thread."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
