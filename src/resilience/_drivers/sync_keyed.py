"""The drivers of a Partition for plain functions: a gate, or a retry budget, for the key of each call."""

from __future__ import annotations

from typing import Any

from resilience._call.keyed import Keyed
from resilience._call.members import ONE
from resilience._call.running_call import RunningCall
from resilience._drivers import hooks
from resilience._drivers.shadow import shadow_of
from resilience._drivers.sync import Step
from resilience._drivers.sync_gate import wait_for_ticket
from resilience._policies.blocks import ResultGate
from resilience._util.clock import clock
from resilience._util.log_once import hook_failed
from resilience.errors import LateResult, RejectedError
from resilience.events._types import Rejected


def keyed_gate(keyed: Keyed[Any], inner: Step, shadow: bool) -> Step:
    """Drive the gate of the key of each call as `gate` drives one. It is in use until the call's work has ended."""
    found, key_of, now = keyed.found, keyed.key_of, clock
    sample: Any = keyed.overflow
    observes = isinstance(sample, ResultGate) and bool(sample.observes_results)

    def gated(call: RunningCall) -> Any:
        try:
            member = found[(call.options.target or call.target) if key_of is None else key_of(call)]
            users = member.users
            users += ONE  # from here to the `try` there is no call, so that no Ctrl-C can come between
        except Exception:  # there is no such key yet, or no usable one
            member = keyed.enter(call)
            users = member.users
        else:
            if not member.live:  # it is being evicted
                del users[-1]
                member = keyed.enter(call)
                users = member.users
        try:
            policy: Any = shadow_of(member) if shadow else member.policy
            try:
                token: Any = policy.admit(call)
            except RejectedError as error:
                if wanting := call.pipeline.bus.listeners_for(Rejected, error.__class__):
                    hooks.deliver_rejection(wanting, policy, call, error)
                raise
            if token.__class__ is member.ticket_class:
                wait_for_ticket(policy, token, call)
            try:
                result = inner(call)
            except BaseException as error:
                if observes and error.__class__ is LateResult:
                    hooks.give_result(policy, token, error)
                hooks.settle_gate_after_error(policy, token, call, error)
                raise
            if observes:
                hooks.give_result(policy, token, result)
            if call.deferred is not None:
                call.deferred.settle_ok(policy, token, call.good)
            else:
                try:
                    policy.settle(token, call.good)
                except Exception as error:
                    hook_failed("settle of a policy", policy.settle, error)
            return result
        finally:
            if call.deferred is None:
                try:
                    monotonic = now.monotonic  # calls of local variables are faster
                    member.used_at = monotonic()
                finally:
                    del users[-1]
            else:
                member.leave_after(call.deferred, users)

    return gated


def keyed_budget(keyed: Keyed[Any], inner: Step) -> Step:
    """Deposit each success in the budget of the key of its call. `inner` is the Loop that withdraws from it."""

    def paying(call: RunningCall) -> Any:
        member = keyed.enter(call)
        users = member.users
        try:
            result = inner(call)
            try:
                member.policy.deposit()
            except Exception as error:
                hook_failed("deposit of a budget", member.policy, error)
            return result
        finally:
            try:
                member.used_at = clock.monotonic()
            finally:
                del users[-1]

    return paying
