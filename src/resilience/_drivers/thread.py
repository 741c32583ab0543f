"""The driver for a part of a plain call that runs on a thread of its own; awaited calls do not need one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience._call import deadline_errors
from resilience._call.call import Call, Limit
from resilience._drivers import hooks
from resilience._policies.shapes import Scope
from resilience._runtime import threads
from resilience._util.clock import ambient
from resilience.errors import RejectedError
from resilience.events._types import Mode, TimeoutScope


def threaded(policy: Scope, inner: Callable[[Call], Any], limit: Limit) -> Callable[[Call], Any]:
    """Drive a Scope whose inside runs on a thread, which is left behind when time is up."""

    def sent(call: Call) -> Any:
        outer, whose = call.deadline, call.limit
        started = ambient.monotonic()
        deadline = policy.deadline(call, started)
        if deadline < outer:
            call.deadline, call.limit = deadline, limit
            if limit.word is TimeoutScope.CALL:
                call.whole, call.whose_whole = deadline, limit
        try:
            if started >= call.deadline:
                raise deadline_errors.expired(call)
            try:
                policy.send(call)
            except RejectedError as error:
                hooks.announce(policy, call, error, Mode.ENFORCE)
                raise
            errand = threads.Errand(inner, call)
            try:
                errand.start()
                if not errand.wait(call.deadline):
                    raise deadline_errors.cut(call, started)
            finally:
                if errand.left is not None:
                    policy.left_behind(errand.left)
            return errand.outcome()
        finally:
            call.deadline, call.limit = outer, whose

    return sent
