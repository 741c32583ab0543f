"""The drivers of gates for coroutine functions: one gate, or two gates, one right within the other, in one closure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience import _runtime as runtime
from resilience._call.call import Call
from resilience._call.settlement import unwind
from resilience._call.wait_queue import Ticket
from resilience._drivers import hooks
from resilience._drivers.async_ import Step
from resilience._outcome.ending import OK, Ending
from resilience._policies.shapes import Gate
from resilience._util.log_once import hook_failed

Admit = Callable[[Call], Any]


def gate(policy: Gate[Any], inner: Step, admit: Callable[[Call], Any]) -> Step:
    """Drive a Gate: admit, call, settle exactly once. `admit` is the gate's, or one that tells of rejections."""
    settle = policy.settle

    async def gated(call: Call) -> Any:
        token = admit(call)
        if token.__class__ is Ticket:
            await wait_in_line(policy, token, call)
        try:
            result = await inner(call)
        except BaseException as error:
            hooks.give_back(policy, token, call, error)
            raise
        if call.deferred is not None:
            call.deferred.returned(policy, token, OK)
        else:
            try:
                settle(token, OK)
            except Exception as error:
                hook_failed("settle of a policy", settle, error)
        return result

    return gated


async def wait_in_line(policy: Gate[Any], ticket: Ticket, call: Call) -> None:
    """Wait until the ticket is granted, or raise the gate's refusal."""
    try:
        await runtime.park(ticket, min(ticket.until, call.deadline))
        taken = ticket.take()
    except BaseException as error:
        unwind(Ticket.forsake, ticket, Ending(None, error))
        raise
    if not taken and not hooks.last_look(ticket):
        refusal = hooks.refused(policy, ticket, call)
        try:
            raise refusal
        finally:
            del refusal  # its traceback holds this frame


def pair(first: Gate[Any], admit: Admit, second: Gate[Any], admit_second: Admit, inner: Step) -> Step:
    """Drive two Gates, the first further out: admit, admit, call, settle each exactly once."""
    settle, settle_second = first.settle, second.settle

    async def paired(call: Call) -> Any:
        token = admit(call)
        if token.__class__ is Ticket:
            await wait_in_line(first, token, call)
        try:
            token_second = admit_second(call)
            if token_second.__class__ is Ticket:
                await wait_in_line(second, token_second, call)
        except BaseException as error:
            hooks.give_back(first, token, call, error)
            raise
        try:
            result = await inner(call)
        except BaseException as error:
            hooks.give_back_both(second, token_second, first, token, call, error)
            raise
        if call.deferred is not None:
            try:
                call.deferred.returned(second, token_second, OK)
            finally:
                call.deferred.returned(first, token, OK)
            return result
        try:
            settle_second(token_second, OK)
        except BaseException as error:
            hooks.not_settled(settle_second, first, token, call, error)
        try:
            settle(token, OK)
        except Exception as error:
            hook_failed("settle of a policy", settle, error)
        return result

    return paired
