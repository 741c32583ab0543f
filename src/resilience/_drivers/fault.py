"""The drivers of an Injector, for plain and for coroutine functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class Pause:
    """What an injected delay waits for: nothing but the time. A drain does not end it, as it ends waits of a Retry."""

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Return True: there is something to wait for."""
        del wake
        return True


PAUSE = Pause()


def inject(policy: Injector, inner: sync.Step) -> sync.Step:
    """Drive an Injector: inject its faults in place of what is inside."""

    def injecting(call: RunningCall) -> Any:
        fault = _fault(policy, call, Mode.ENFORCE)
        if fault is None:
            return inner(call)
        if fault.latency > 0:
            for until in _pauses(call, fault.latency):
                threads.sleep(PAUSE, until)
        return _outcome(fault) if _replaces(fault) else inner(call)

    return injecting


def inject_async(policy: Injector, inner: async_.Step) -> async_.Step:
    """Drive an Injector: inject its faults in place of what is inside."""

    async def injecting(call: RunningCall) -> Any:
        fault = _fault(policy, call, Mode.ENFORCE)
        if fault is None:
            return await inner(call)
        if fault.latency > 0:
            for until in _pauses(call, fault.latency):
                await _runtime.sleep(PAUSE, until)
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


def _pauses(call: RunningCall, latency: float) -> Iterator[float]:
    """Yield until when to sleep, until a delay is over; raise the error of a call that is cut at its deadline.

    There is more than one sleep if the deadline was inherited, and becomes void meanwhile.
    """
    started = clock.monotonic()
    end = started + latency
    while True:
        now, deadline = clock.monotonic(), call.refresh_deadline()
        if now >= deadline:
            raise deadline_errors.cut_error(call, started)
        if now >= end:
            return
        yield min(end, deadline)


def _replaces(fault: Fault) -> bool:
    return fault.has_result or fault.error is not None


def _outcome(fault: Fault) -> Any:
    if fault.error is not None:
        raise fault.error
    return fault.result
