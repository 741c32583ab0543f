"""The drivers of gates for plain functions: one gate, or two gates, one right within the other, in one closure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience._call.call import Call
from resilience._call.settlement import settle_after_error
from resilience._call.wait_queue import Ticket
from resilience._drivers import hooks
from resilience._drivers.sync import Step
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Gate
from resilience._runtime import threads as runtime
from resilience._util.log_once import hook_failed

Admit = Callable[[Call], Any]


def gate(policy: Gate[Any], inner: Step, admit: Callable[[Call], Any]) -> Step:
    """Drive a Gate: admit, call, settle exactly once. `admit` is the gate's, or one that tells of rejections."""
    settle = policy.settle

    def gated(call: Call) -> Any:
        token = admit(call)
        if token.__class__ is Ticket:
            wait_for_ticket(policy, token, call)
        try:
            result = inner(call)
        except BaseException as error:
            hooks.settle_gate_after_error(policy, token, call, error)
            raise
        if call.deferred is not None:
            call.deferred.settle_ok(policy, token, OK)
        else:
            try:
                settle(token, OK)
            except Exception as error:
                hook_failed("settle of a policy", settle, error)
        return result

    return gated


def wait_for_ticket(policy: Gate[Any], ticket: Ticket, call: Call) -> None:
    """Wait until the ticket is granted, or raise the gate's rejection."""
    try:
        runtime.park(ticket, min(ticket.until, call.deadline))
        taken = ticket.acquire()
    except BaseException as error:
        settle_after_error(Ticket.forsake, ticket, Ending(None, error))
        raise
    if not taken and not hooks.acquire_or_leave(ticket):
        rejection = hooks.rejection_after_wait(policy, ticket, call)
        try:
            raise rejection
        finally:
            del rejection  # its traceback holds this frame


def gate_pair(first: Gate[Any], admit: Admit, second: Gate[Any], admit_second: Admit, inner: Step) -> Step:
    """Drive two Gates, the first further out: admit, admit, call, settle each exactly once."""
    settle, settle_second = first.settle, second.settle

    def paired(call: Call) -> Any:
        token = admit(call)
        if token.__class__ is Ticket:
            wait_for_ticket(first, token, call)
        try:
            token_second = admit_second(call)
            if token_second.__class__ is Ticket:
                wait_for_ticket(second, token_second, call)
        except BaseException as error:
            hooks.settle_gate_after_error(first, token, call, error)
            raise
        try:
            result = inner(call)
        except BaseException as error:
            hooks.settle_pair_after_error(second, token_second, first, token, call, error)
            raise
        if call.deferred is not None:
            try:
                call.deferred.settle_ok(second, token_second, OK)
            finally:
                call.deferred.settle_ok(first, token, OK)
            return result
        try:
            settle_second(token_second, OK)
        except BaseException as error:
            hooks.settle_failed(settle_second, first, token, call, error)
        try:
            settle(token, OK)
        except Exception as error:
            hook_failed("settle of a policy", settle, error)
        return result

    return paired
