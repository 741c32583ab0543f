"""The drivers of an Injector, for plain and for coroutine functions."""

from __future__ import annotations

from typing import Any

from resilience import _runtime
from resilience._call import deadline_errors
from resilience._call.running_call import RunningCall
from resilience._drivers import async_, sync
from resilience._policies.shapes import Fault, Injector
from resilience._runtime import threads
from resilience._util.clock import clock
from resilience._util.log_once import hook_failed
from resilience.events._policy_types import FaultInjected
from resilience.events._types import Mode, type_name


def inject(policy: Injector, inner: sync.Step) -> sync.Step:
    """Drive an Injector: inject its faults in place of what is inside."""

    def injecting(call: RunningCall) -> Any:
        fault = _fault(policy, call, Mode.ENFORCE)
        if fault is None:
            return inner(call)
        if fault.latency > 0:
            started = clock.monotonic()
            threads.sleep(call, min(started + fault.latency, call.deadline))
            _check_deadline(call, started)
        return _outcome(fault) if _replaces(fault) else inner(call)

    return injecting


def inject_async(policy: Injector, inner: async_.Step) -> async_.Step:
    """Drive an Injector: inject its faults in place of what is inside."""

    async def injecting(call: RunningCall) -> Any:
        fault = _fault(policy, call, Mode.ENFORCE)
        if fault is None:
            return await inner(call)
        if fault.latency > 0:
            started = clock.monotonic()
            await _runtime.sleep(call, min(started + fault.latency, call.deadline))
            _check_deadline(call, started)
        return _outcome(fault) if _replaces(fault) else await inner(call)

    return injecting


def shadow_inject(policy: Injector, inner: Any) -> Any:
    """Drive an Injector in shadow mode, for either kind of function: report its faults."""

    def watched(call: RunningCall) -> Any:
        _fault(policy, call, Mode.SHADOW)
        return inner(call)

    return watched


def _fault(policy: Injector, call: RunningCall, mode: Mode) -> Fault | None:
    """Return the fault for a call, and publish it; None for none, or if the hook fails, which is logged once."""
    try:
        fault = policy.inject(call)
    except Exception as error:
        hook_failed("inject of a policy", policy, error)
        return None
    if fault is not None:
        error_type = "" if fault.error is None else type_name(fault.error)
        call.pipeline.publish(
            FaultInjected,
            policy,
            call,
            latency=fault.latency,
            error_type=error_type,
            result=fault.has_result,
            mode=mode,
        )
    return fault


def _check_deadline(call: RunningCall, started: float) -> None:
    """Raise the error of a call that was cut at its deadline, if that has passed."""
    if clock.monotonic() >= call.deadline:
        raise deadline_errors.cut_error(call, started)


def _replaces(fault: Fault) -> bool:
    return fault.has_result or fault.error is not None


def _outcome(fault: Fault) -> Any:
    if fault.error is not None:
        raise fault.error
    return fault.result
