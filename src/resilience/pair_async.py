"""Two gates, one right within the other, driven by one closure: `pair_sync` with awaits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience import consult
from resilience.call import Call
from resilience.complaints import hook_failed
from resilience.drive_async import Step, wait_in_line
from resilience.ending import OK
from resilience.shapes import Gate
from resilience.tickets import Ticket

Admit = Callable[[Call], Any]


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
            consult.give_back(first, token, call, error)
            raise
        try:
            result = await inner(call)
        except BaseException as error:
            consult.give_back_both(second, token_second, first, token, call, error)
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
            consult.not_settled(settle_second, first, token, call, error)
        try:
            settle(token, OK)
        except Exception as error:
            hook_failed("settle of a policy", settle, error)
        return result

    return paired
