"""The driver of a Scope that runs plain calls on a thread of their own; awaited calls do not need one."""

from __future__ import annotations

from typing import Any

from resilience._call import deadline_errors
from resilience._call.running_call import DeadlineSource, RunningCall
from resilience._drivers import hooks
from resilience._drivers.sync import Step, scope
from resilience._policies.shapes import Scope
from resilience._runtime.threads import ThreadCall
from resilience._util.clock import clock
from resilience.errors import RejectedError
from resilience.events._types import Mode


def thread_scope(policy: Scope, inner: Step, source: DeadlineSource) -> Step:
    """Drive a Scope that runs what is inside on a new thread, which is abandoned at the deadline."""

    def on_thread(call: RunningCall) -> Any:
        started = clock.monotonic()
        if started >= call.deadline:
            raise deadline_errors.expired_error(call)
        try:
            policy.before_thread_call(call)
        except RejectedError as error:
            hooks.publish_rejection(policy, call, error, Mode.ENFORCE)
            raise
        thread_call = ThreadCall(inner, call)
        try:
            thread_call.start()
            if not thread_call.wait(call.deadline):
                raise deadline_errors.cut_error(call, started)
        finally:
            if thread_call.abandoned is not None:
                policy.on_thread_abandoned(thread_call.abandoned)
        return thread_call.outcome()

    return scope(policy, on_thread, source)
