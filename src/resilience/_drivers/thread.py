"""The driver for a part of a plain call that runs on a thread of its own; awaited calls do not need one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience._call import deadline_errors
from resilience._call.call import Call, DeadlineSource
from resilience._drivers import hooks
from resilience._policies.shapes import Scope
from resilience._runtime import threads
from resilience._util.clock import clock
from resilience.errors import RejectedError
from resilience.events._types import Mode, TimeoutScope


def threaded(policy: Scope, inner: Callable[[Call], Any], limit: DeadlineSource) -> Callable[[Call], Any]:
    """Drive a Scope whose inside runs on a thread, which is left behind when time is up."""

    def sent(call: Call) -> Any:
        outer, whose = call.deadline, call.deadline_source
        started = clock.monotonic()
        deadline = policy.deadline(call, started)
        if deadline < outer:
            call.deadline, call.deadline_source = deadline, limit
            if limit.scope is TimeoutScope.CALL:
                call.total_deadline, call.total_deadline_source = deadline, limit
        try:
            if started >= call.deadline:
                raise deadline_errors.expired_error(call)
            try:
                policy.before_thread_call(call)
            except RejectedError as error:
                hooks.publish_rejection(policy, call, error, Mode.ENFORCE)
                raise
            errand = threads.ThreadCall(inner, call)
            try:
                errand.start()
                if not errand.wait(call.deadline):
                    raise deadline_errors.cut_error(call, started)
            finally:
                if errand.left is not None:
                    policy.on_thread_abandoned(errand.left)
            return errand.outcome()
        finally:
            call.deadline, call.deadline_source = outer, whose

    return sent
