"""The two families of drivers, for plain and for coroutine functions, as tuples of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from resilience import _runtime
from resilience._call.call import PipelineInfo
from resilience._call.keyed import Keyed
from resilience._call.running_call import DeadlineSource, RunningCall
from resilience._drivers import (
    async_,
    async_gate,
    async_keyed,
    async_race,
    async_substitute,
    fault,
    phases,
    sync,
    sync_gate,
    sync_keyed,
    sync_race,
    sync_substitute,
)
from resilience._drivers.context_gate import ContextGate
from resilience._drivers.hooks import CountCall
from resilience._drivers.meter_gate import MeterGate
from resilience._drivers.thread import thread_scope, thread_scope_async
from resilience._outcome.allowlist import Allowlist
from resilience._policies.base import Policy
from resilience._policies.blocks import ResultGate
from resilience._policies.phases import PhasedScope
from resilience._policies.shapes import Gate, Injector, Loop, OnSuccess, Race, Scope, Substitute
from resilience._runtime import threads
from resilience.events._types import TimeoutScope

Step: TypeAlias = "Callable[[RunningCall], Any]"
"""One closure of a chain: takes a call and returns its result, or an awaitable of it in the async family."""


class Drivers(NamedTuple):
    """One family of drivers. The modules `sync` and `async_`, and `sync_gate` and `async_gate`, describe each."""

    invoke: Step
    invoke_attempt: Step
    invoke_with_deadline: Step
    gate: Callable[[Gate[Any], Step], Step]
    admission_gate: Callable[[ResultGate[Any], Step], Step]
    result_gate: Callable[[ResultGate[Any], Step], Step]
    gate_pair: Callable[[Gate[Any], Gate[Any], Step], Step]
    meter_calls: Callable[[MeterGate, Step], Step]
    meter_attempts: Callable[[MeterGate, Step], Step]
    in_context: Callable[[ContextGate, Step], Step]
    keyed_gate: Callable[[Keyed[Any], Step, bool], Step]
    keyed_budget: Callable[[Keyed[Any], Step], Step]
    loop: Callable[[Loop, Step, OnSuccess | None, DeadlineSource | None], Step]
    shadow_loop: Callable[[Loop, Step, OnSuccess | None], Step]
    scope: Callable[[Scope, Step, DeadlineSource], Step]
    shadow_scope: Callable[[Scope, Step, DeadlineSource], Step]
    thread_scope: Callable[[Scope, Step, DeadlineSource], Step]
    phases: Callable[[PhasedScope, Step, TimeoutScope, PipelineInfo], Step]
    shadow_phases: Callable[[PhasedScope, Step, TimeoutScope, PipelineInfo], Step]
    inject: Callable[[Injector, Step], Step]
    shadow_inject: Callable[[Injector, Step], Step]
    race: Callable[[Race, Step, OnSuccess | None, tuple[Policy[Any], ...]], Step]
    shadow_race: Callable[[Race, Step, OnSuccess | None, tuple[Policy[Any], ...]], Step]
    substitute: Callable[[Substitute[Any], Step, PipelineInfo], Step]
    shadow_substitute: Callable[[Substitute[Any], Step, PipelineInfo], Step]
    raise_bad_results: Callable[[Step, tuple[Allowlist, ...]], Step]
    nested: Callable[[Step, PipelineInfo, CountCall, CountCall], Step]


SYNC = Drivers(
    invoke=sync.invoke,
    invoke_attempt=sync.invoke_attempt,
    invoke_with_deadline=threads.call_with_deadline,
    gate=sync_gate.gate,
    admission_gate=sync_gate.admission_gate,
    result_gate=sync_gate.result_gate,
    gate_pair=sync_gate.gate_pair,
    meter_calls=sync_gate.meter_calls,
    meter_attempts=sync_gate.meter_attempts,
    in_context=sync_gate.in_context,
    keyed_gate=sync_keyed.keyed_gate,
    keyed_budget=sync_keyed.keyed_budget,
    loop=sync.loop,
    shadow_loop=sync.shadow_loop,
    scope=sync.scope,
    shadow_scope=sync.shadow_scope,
    thread_scope=thread_scope,
    phases=phases.phases,
    shadow_phases=phases.shadow_phases,
    inject=fault.inject,
    shadow_inject=fault.shadow_inject,
    race=sync_race.race,
    shadow_race=sync_race.shadow_race,
    substitute=sync_substitute.substitute,
    shadow_substitute=sync_substitute.shadow_substitute,
    raise_bad_results=sync.raise_bad_results,
    nested=sync.nested,
)

ASYNC = Drivers(
    invoke=async_.invoke,
    invoke_attempt=async_.invoke_attempt,
    invoke_with_deadline=_runtime.call_with_deadline,
    gate=async_gate.gate,
    admission_gate=async_gate.admission_gate,
    result_gate=async_gate.result_gate,
    gate_pair=async_gate.gate_pair,
    meter_calls=async_gate.meter_calls,
    meter_attempts=async_gate.meter_attempts,
    in_context=async_gate.in_context,
    keyed_gate=async_keyed.keyed_gate,
    keyed_budget=async_keyed.keyed_budget,
    loop=async_.loop,
    shadow_loop=async_.shadow_loop,
    scope=async_.scope,
    shadow_scope=async_.shadow_scope,
    thread_scope=thread_scope_async,
    phases=phases.phases_async,
    shadow_phases=phases.shadow_phases_async,
    inject=fault.inject_async,
    shadow_inject=fault.shadow_inject,
    race=async_race.race,
    shadow_race=async_race.shadow_race,
    substitute=async_substitute.substitute,
    shadow_substitute=async_substitute.shadow_substitute,
    raise_bad_results=async_.raise_bad_results,
    nested=async_.nested,
)


def driver_of(gate: Gate[Any], drivers: Drivers) -> Callable[[Any, Step], Step]:
    """Return the driver of a gate that is driven alone, by what the gate needs of it."""
    if observes_results(gate):
        return drivers.result_gate
    return drivers.gate if getattr(gate, "settles_success", True) else drivers.admission_gate


def observes_results(policy: object) -> bool:
    """Return whether a policy is a gate that needs what its calls return."""
    return isinstance(policy, ResultGate) and policy.observes_results
