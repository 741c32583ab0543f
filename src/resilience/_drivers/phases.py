"""The drivers of what a Scope says about the parts of a streamed result: its first item, and its silences."""

from __future__ import annotations

from typing import Any

from resilience._call.call import PipelineInfo
from resilience._call.deadline_errors import publish
from resilience._call.running_call import DeadlineSource, PhasedCall, Phases, RunningCall, StreamedCall
from resilience._drivers import async_, sync
from resilience._policies.phases import PhasedScope
from resilience._util.clock import FOREVER, clock
from resilience.events._types import Mode, TimeoutScope


def phases(policy: PhasedScope, inner: sync.Step, scope: TimeoutScope, info: PipelineInfo) -> sync.Step:
    """Bound the first item of a streamed result, and its silences; do nothing for other results."""
    phase = _Phases(policy, scope, info)

    def phased(call: RunningCall) -> Any:
        if not isinstance(call, PhasedCall):
            return inner(call)
        outer = call.deadline, call.deadline_source, call.phases
        try:
            phase.begin(call)
            return inner(call)
        finally:
            call.deadline, call.deadline_source, call.phases = outer

    return phased


def phases_async(policy: PhasedScope, inner: async_.Step, scope: TimeoutScope, info: PipelineInfo) -> async_.Step:
    """Do as `phases`, for coroutine functions."""
    phase = _Phases(policy, scope, info)

    async def phased(call: RunningCall) -> Any:
        if not isinstance(call, PhasedCall):
            return await inner(call)
        outer = call.deadline, call.deadline_source, call.phases
        try:
            phase.begin(call)
            return await inner(call)
        finally:
            call.deadline, call.deadline_source, call.phases = outer

    return phased


def shadow_phases(policy: PhasedScope, inner: sync.Step, scope: TimeoutScope, info: PipelineInfo) -> sync.Step:
    """Report a late first item of a streamed result, and a long silence, and let the call go on."""
    phase = _Phases(policy, scope, info)

    def watched(call: RunningCall) -> Any:
        if not isinstance(call, PhasedCall):
            return inner(call)
        outer = call.shadow_phases
        first_at = phase.watch(call)
        try:
            result = inner(call)
            phase.report(call, first_at)
            return result
        finally:
            call.shadow_phases = outer

    return watched


def shadow_phases_async(
    policy: PhasedScope, inner: async_.Step, scope: TimeoutScope, info: PipelineInfo
) -> async_.Step:
    """Do as `shadow_phases`, for coroutine functions."""
    phase = _Phases(policy, scope, info)

    async def watched(call: RunningCall) -> Any:
        if not isinstance(call, PhasedCall):
            return await inner(call)
        outer = call.shadow_phases
        first_at = phase.watch(call)
        try:
            result = await inner(call)
            phase.report(call, first_at)
            return result
        finally:
            call.shadow_phases = outer

    return watched


class _Phases:
    """The bounds of one Scope in one pipeline."""

    def __init__(self, policy: PhasedScope, scope: TimeoutScope, info: PipelineInfo) -> None:
        first, idle = policy.first, policy.idle
        self._first = FOREVER if first is None else first
        self._idle = FOREVER if idle is None else idle
        self._first_source = DeadlineSource(scope, info, policy, first, "limit on the first item")
        self._idle_source = DeadlineSource(scope, info, policy, idle, "limit on silences")

    def begin(self, call: PhasedCall) -> None:
        """Set the bounds for a call, unless there are shorter ones."""
        own = self._from_now()
        call.phases = call.phases.shortened(own)
        if own.first_at < call.deadline:
            call.deadline, call.deadline_source = own.first_at, self._first_source

    def watch(self, call: PhasedCall) -> float:
        """Have silences reported, and return the time until which the first item must have arrived."""
        own = self._from_now()
        call.shadow_phases = call.shadow_phases.shortened(own)
        return own.first_at

    def report(self, call: PhasedCall, first_at: float) -> None:
        """Publish that the first item came too late, if it did. A client's response may have come without any."""
        if isinstance(call, StreamedCall) and clock.monotonic() >= first_at:
            publish(call, self._first_source, mode=Mode.SHADOW)

    def _from_now(self) -> Phases:
        return Phases(clock.monotonic() + self._first, self._first_source, self._idle, self._idle_source)
