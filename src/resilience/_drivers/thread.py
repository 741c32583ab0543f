"""The drivers of a Scope that runs plain functions on a thread of their own, so that they can be abandoned."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from resilience import _runtime
from resilience._call import callables, deadline_errors
from resilience._call.caller import is_async
from resilience._call.running_call import DeadlineSource, RunningCall
from resilience._drivers import async_, hooks, sync
from resilience._policies.shapes import Scope
from resilience._runtime.threads import ThreadCall
from resilience._util.clock import FOREVER, clock
from resilience.errors import RejectedError
from resilience.events._types import Mode


def thread_scope(policy: Scope, inner: sync.Step, source: DeadlineSource) -> sync.Step:
    """Drive a Scope that runs what is inside on a new thread, which is abandoned at the deadline."""

    def on_thread(call: RunningCall) -> Any:
        started = clock.monotonic()
        if started >= call.deadline:
            raise deadline_errors.expired_error(call)
        _check(policy, call)
        thread_call = ThreadCall(inner, call)
        try:
            thread_call.start()
            if not thread_call.wait(call.deadline):
                raise deadline_errors.cut_error(call, started)
        finally:
            if thread_call.abandoned is not None:
                policy.on_thread_abandoned(thread_call.abandoned)
        return thread_call.outcome()

    return sync.scope(policy, on_thread, source)


def thread_scope_async(policy: Scope, inner: async_.Step, source: DeadlineSource) -> async_.Step:
    """Drive the same Scope for awaited calls: a plain function runs on a new thread, so that no loop is blocked.

    The policies inside run in the task. A coroutine function can be cancelled, and needs no thread.
    """

    async def on_thread(call: RunningCall) -> Any:
        function = call.function
        if is_async(function):
            return await inner(call)
        call.function = _on_thread(policy, call, function)
        try:
            return await inner(call)
        finally:
            call.function = function

    return async_.scope(policy, on_thread, source)


def _on_thread(policy: Scope, call: RunningCall, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function that calls a plain function on a new thread, abandoned when it is cancelled."""

    @functools.wraps(function)
    async def threaded(*args: Any, **kwargs: Any) -> Any:
        _check(policy, call)
        thread_call = ThreadCall(lambda _: function(*args, **kwargs), call)
        try:
            thread_call.start()
            await _runtime.park(thread_call, FOREVER)
        finally:
            if not thread_call.stop_waiting() and thread_call.abandoned is not None:
                policy.on_thread_abandoned(thread_call.abandoned)
        result = thread_call.outcome()
        return await result if callables.is_awaitable(result, function) else result

    return threaded


def _check(policy: Scope, call: RunningCall) -> None:
    """Have the policy admit another thread."""
    try:
        policy.before_thread_call(call)
    except RejectedError as error:
        hooks.publish_rejection(policy, call, error, Mode.ENFORCE)
        raise
