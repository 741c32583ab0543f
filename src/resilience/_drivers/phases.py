"""The drivers of what a Scope says about the parts of a streamed result: its first item, and its silences."""

from __future__ import annotations

from typing import Any

from resilience._call.call import PipelineInfo
from resilience._call.deadline_errors import publish
from resilience._call.running_call import DeadlineSource, RunningCall, StreamedCall
from resilience._drivers import async_, sync
from resilience._policies.phases import PhasedScope
from resilience._util.clock import FOREVER, clock
from resilience.events._types import Mode, TimeoutScope


def phases(policy: PhasedScope, inner: sync.Step, scope: TimeoutScope, info: PipelineInfo) -> sync.Step:
    """Bound the first item of a streamed result, and its silences; do nothing for other results."""
    phase = _Phases(policy, scope, info)

    def phased(call: RunningCall) -> Any:
        if not isinstance(call, StreamedCall):
            return inner(call)
        outer = call.deadline, call.deadline_source
        try:
            phase.begin(call)
            return inner(call)
        finally:
            call.deadline, call.deadline_source = outer

    return phased


def phases_async(policy: PhasedScope, inner: async_.Step, scope: TimeoutScope, info: PipelineInfo) -> async_.Step:
    """Do as `phases`, for coroutine functions."""
    phase = _Phases(policy, scope, info)

    async def phased(call: RunningCall) -> Any:
        if not isinstance(call, StreamedCall):
            return await inner(call)
        outer = call.deadline, call.deadline_source
        try:
            phase.begin(call)
            return await inner(call)
        finally:
            call.deadline, call.deadline_source = outer

    return phased


def shadow_phases(policy: PhasedScope, inner: sync.Step, scope: TimeoutScope, info: PipelineInfo) -> sync.Step:
    """Report a late first item of a streamed result, and a long silence, and let the call go on."""
    phase = _Phases(policy, scope, info)

    def watched(call: RunningCall) -> Any:
        if not isinstance(call, StreamedCall):
            return inner(call)
        begun = phase.watch(call)
        result = inner(call)
        phase.report(call, begun)
        return result

    return watched


def shadow_phases_async(
    policy: PhasedScope, inner: async_.Step, scope: TimeoutScope, info: PipelineInfo
) -> async_.Step:
    """Do as `shadow_phases`, for coroutine functions."""
    phase = _Phases(policy, scope, info)

    async def watched(call: RunningCall) -> Any:
        if not isinstance(call, StreamedCall):
            return await inner(call)
        begun = phase.watch(call)
        result = await inner(call)
        phase.report(call, begun)
        return result

    return watched


class _Phases:
    """The bounds of one Scope in one pipeline."""

    def __init__(self, policy: PhasedScope, scope: TimeoutScope, info: PipelineInfo) -> None:
        first, idle = policy.first, policy.idle
        self._first = FOREVER if first is None else first
        self._idle = FOREVER if idle is None else idle
        self._first_source = DeadlineSource(scope, info, policy, first, "limit on the first item")
        self._idle_source = DeadlineSource(scope, info, policy, idle, "limit on silences")

    def begin(self, call: StreamedCall) -> None:
        """Set the bounds for a call, unless there are shorter ones."""
        if self._idle < call.idle:
            call.idle, call.idle_source = self._idle, self._idle_source
        deadline = clock.monotonic() + self._first
        if deadline < call.deadline:
            call.deadline, call.deadline_source = deadline, self._first_source

    def watch(self, call: StreamedCall) -> float:
        """Have silences reported, and return the time."""
        if self._idle < call.shadow_idle:
            call.shadow_idle, call.shadow_idle_source = self._idle, self._idle_source
        return clock.monotonic()

    def report(self, call: StreamedCall, begun: float) -> None:
        """Publish that the first item came too late, if it did."""
        if clock.monotonic() - begun >= self._first:
            publish(call, self._first_source, mode=Mode.SHADOW)
