"""The drivers of gates for plain functions: one gate, or two adjacent gates in one closure."""

from __future__ import annotations

from typing import Any

from resilience._call.running_call import RunningCall
from resilience._call.wait_queue import Ticket
from resilience._drivers import hooks
from resilience._drivers.context_gate import ContextGate
from resilience._drivers.meter_gate import MOST_PENDING, MeterGate
from resilience._drivers.sync import Step
from resilience._drivers.waits import leave_after_error, publish_wait
from resilience._policies.blocks import ResultGate
from resilience._policies.shapes import Gate
from resilience._runtime import threads as runtime
from resilience._util.clock import clock
from resilience._util.log_once import hook_failed
from resilience.errors import LateResult, RejectedError
from resilience.events._types import Mode, Rejected


def gate(policy: Gate[Any], inner: Step) -> Step:
    """Drive a Gate: admit the call, pass it on, settle the token exactly once."""
    admit, settle, ticket_class = policy.admit, policy.settle, policy.ticket_class

    def gated(call: RunningCall) -> Any:
        try:
            token = admit(call)
        except RejectedError as error:
            if wanting := call.pipeline.bus.listeners_for(Rejected, error.__class__):
                hooks.deliver_rejection(wanting, policy, call, error)
            raise
        if token.__class__ is ticket_class:
            wait_for_ticket(policy, token, call)
        try:
            result = inner(call)
        except BaseException as error:
            hooks.settle_gate_after_error(policy, token, call, error)
            raise
        if call.deferred is not None:
            call.deferred.settle_ok(policy, token, call.good)
        else:
            try:
                settle(token, call.good)
            except Exception as error:
                hook_failed("settle of a policy", settle, error)
        return result

    return gated


def admission_gate(policy: ResultGate[Any], inner: Step) -> Step:
    """Drive a gate that is not settled after a success: admit the call, pass it on, settle the token of a failure."""
    admit, ticket_class = policy.admit, policy.ticket_class

    def gated(call: RunningCall) -> Any:
        try:
            token = admit(call)
        except RejectedError as error:
            hooks.publish_rejection(policy, call, error, Mode.ENFORCE)
            raise
        if token.__class__ is ticket_class:
            wait_for_ticket(policy, token, call)
        try:
            return inner(call)
        except BaseException as error:
            hooks.settle_gate_after_error(policy, token, call, error)
            raise

    return gated


def result_gate(policy: ResultGate[Any], inner: Step) -> Step:
    """Drive a ResultGate as `gate` drives a Gate, and give it the results."""
    admit, ticket_class = policy.admit, policy.ticket_class

    def gated(call: RunningCall) -> Any:
        try:
            token = admit(call)
        except RejectedError as error:
            hooks.publish_rejection(policy, call, error, Mode.ENFORCE)
            raise
        if token.__class__ is ticket_class:
            wait_for_ticket(policy, token, call)
        try:
            result = inner(call)
        except BaseException as error:
            if error.__class__ is LateResult:
                hooks.give_result(policy, token, error)
            hooks.settle_gate_after_error(policy, token, call, error)
            raise
        hooks.give_result(policy, token, result)
        if call.deferred is not None:
            call.deferred.settle_ok(policy, token, call.good)
        else:
            hooks.settle_gate(policy, token, call.good)
        return result

    return gated


def gate_pair(outer: Gate[Any], policy: Gate[Any], inner: Step) -> Step:
    """Drive two adjacent Gates as `gate` drives one. One closure costs less than two."""
    admit, settle, ticket_class = policy.admit, policy.settle, policy.ticket_class
    admit_outer, settle_outer, outer_ticket_class = outer.admit, outer.settle, outer.ticket_class

    def gated(call: RunningCall) -> Any:
        try:
            outer_token = admit_outer(call)
        except RejectedError as error:
            if wanting := call.pipeline.bus.listeners_for(Rejected, error.__class__):
                hooks.deliver_rejection(wanting, outer, call, error)
            raise
        if outer_token.__class__ is outer_ticket_class:
            wait_for_ticket(outer, outer_token, call)
        try:
            try:
                token = admit(call)
            except RejectedError as error:
                if wanting := call.pipeline.bus.listeners_for(Rejected, error.__class__):
                    hooks.deliver_rejection(wanting, policy, call, error)
                raise
            if token.__class__ is ticket_class:
                wait_for_ticket(policy, token, call)
        except BaseException as error:
            hooks.settle_gate_after_error(outer, outer_token, call, error)
            raise
        try:
            result = inner(call)
        except BaseException as error:
            hooks.settle_pair_after_error(policy, token, outer, outer_token, call, error)
            raise
        if call.deferred is not None:
            try:
                call.deferred.settle_ok(policy, token, call.good)
            finally:
                call.deferred.settle_ok(outer, outer_token, call.good)
            return result
        try:
            settle(token, call.good)
        except BaseException as error:
            hooks.settle_failed(policy, outer, outer_token, call, error)
        try:
            settle_outer(outer_token, call.good)
        except Exception as error:
            hook_failed("settle of a policy", settle_outer, error)
        return result

    return gated


def meter_calls(policy: MeterGate, inner: Step) -> Step:
    """Drive a MeterGate of calls as `gate` does, with a shorter way for single attempts with a good ending."""
    now, ok = clock, policy.ok

    def metered(call: RunningCall) -> Any:
        started, calls_made = now.monotonic(), call.calls_made
        try:
            result = inner(call)
        except BaseException as error:
            hooks.settle_gate_after_error(policy, (call, started, calls_made), call, error)
            raise
        if call.deferred is not None:
            call.deferred.settle_ok(policy, (call, started, calls_made), call.good)
        elif call.calls_made - calls_made > 1:
            hooks.settle_gate(policy, (call, started, calls_made), call.good)
        else:
            ok(now.monotonic() - started)
            if len(policy.pending) > MOST_PENDING:
                policy.flush()
        return result

    return metered


def meter_attempts(policy: MeterGate, inner: Step) -> Step:
    """Drive a MeterGate of attempts as `meter_calls` does one of calls."""
    now, ok = clock, policy.ok

    def metered(call: RunningCall) -> Any:
        started = now.monotonic()
        try:
            result = inner(call)
        except BaseException as error:
            hooks.settle_gate_after_error(policy, (call, started, 0), call, error)
            raise
        if call.deferred is None:
            ok(now.monotonic() - started)
        else:
            call.deferred.settle_ok(policy, (call, started, 0), call.good)
        return result

    return metered


def in_context(policy: ContextGate, inner: Step) -> Step:
    """Drive a ContextGate: pass calls, or attempts, on in its context, and settle its token when the work has ended."""
    enter, leave = policy.enter, policy.leave

    def entered(call: RunningCall) -> Any:
        token = enter(call)
        if token is None:
            return inner(call)
        try:
            result = inner(call)
        except BaseException as error:
            leave(token, None, error)
            hooks.settle_gate_after_error(policy, token, call, error)
            raise
        leave(token, result, None)
        if call.deferred is not None:
            call.deferred.settle_ok(policy, token, call.good)
        else:
            hooks.settle_gate(policy, token, call.good)
        return result

    return entered


def wait_for_ticket(policy: Gate[Any], ticket: Ticket, call: RunningCall) -> None:
    """Wait until the ticket is granted; otherwise leave the queue, and raise the gate's rejection."""
    try:
        started = clock.monotonic()
        acquired, parks = False, not ticket.waits_past(runtime.effective_deadline)
        while parks:
            runtime.park(ticket, min(ticket.park_until(), call.deadline))
            acquired = ticket.acquire()
            deadline = call.refresh_deadline()
            parks = not acquired and ticket.parks_again(deadline)
        acquired = acquired or hooks.acquire_or_leave(ticket)
        publish_wait(policy, call, started, acquired=acquired)
    except BaseException as error:
        leave_after_error(policy, ticket, error)
        raise
    if not acquired:
        rejection = hooks.rejection_after_wait(policy, ticket, call)
        try:
            raise rejection
        finally:
            del rejection  # its traceback refers to this frame
