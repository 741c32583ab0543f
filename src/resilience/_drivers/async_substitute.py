"""The drivers of a Substitute for coroutine functions."""

from __future__ import annotations

from typing import Any

from resilience import _runtime as runtime
from resilience._call.call import PipelineInfo
from resilience._call.running_call import RunningCall
from resilience._drivers import hooks
from resilience._drivers.async_ import Step
from resilience._policies.base import fixed
from resilience._policies.shapes import Substitute
from resilience._util.clock import FOREVER
from resilience.events._types import Mode


def substitute(policy: Substitute[Any], inner: Step, info: PipelineInfo) -> Step:
    """Drive a Substitute: replace the outcome of an ending that it handles."""
    keeps_results, decide = hooks.keeps_results(policy), fixed(policy)

    async def replacing(call: RunningCall) -> Any:
        try:
            result = await inner(call)
        except Exception as error:
            # Not in a local variable: the traceback holds this frame, and the ending holds the exception.
            if not hooks.should_handle(decide, call, call.ending_of(error)):
                raise
            age = hooks.age_of(decide, call)
            value = decide.replace(call, call.ending_of(error))
        else:
            if keeps_results:
                hooks.keep_result(decide, call, result)
            return result
        if hasattr(value.__class__, "__await__"):
            value = await await_replacement(value, call, policy.name)
        call.deferred = hooks.settlement_of_replacement(call.deferred)
        hooks.publish_replacement(policy, call, info, Mode.ENFORCE, age)
        return value

    return replacing


async def await_replacement(value: Any, call: RunningCall, policy: str) -> Any:
    """Await a replacement, within the deadline that is in force around the Substitute."""
    del policy
    return await (value if call.deadline == FOREVER else runtime.call_with_deadline(call, value))


def shadow_substitute(policy: Substitute[Any], inner: Step, info: PipelineInfo) -> Step:
    """Drive a Substitute in shadow mode: it reports a replacement, and the ending passes through."""
    keeps_results, decide = hooks.keeps_results(policy), fixed(policy)

    async def watched(call: RunningCall) -> Any:
        try:
            result = await inner(call)
        except Exception as error:
            if hooks.should_handle(decide, call, call.ending_of(error)):
                hooks.publish_replacement(policy, call, info, Mode.SHADOW, hooks.age_of(decide, call))
            raise
        if keeps_results:
            hooks.keep_result(decide, call, result)
        return result

    return watched
