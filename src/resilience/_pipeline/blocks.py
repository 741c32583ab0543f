"""Passing a gate by hand, for `with` and `async with`: what the drivers do around a call, in two halves."""

from __future__ import annotations

from typing import Any

from resilience import _runtime
from resilience._call.call import Binding, Call
from resilience._call.caller import Passage
from resilience._call.wait_queue import Ticket
from resilience._drivers import async_gate, hooks, sync_gate
from resilience._drivers.shadow import KEPT_OUT, Watching
from resilience._pipeline.in_flight import Census
from resilience._policies.shapes import Gate
from resilience._util.finalizers import run_pending
from resilience.errors import Misuse, RejectedError
from resilience.events._types import Mode


def let_in(census: Census, gate: Gate[Any], binding: Binding, mode: Mode) -> Passage:
    """Pass a gate, waiting in a thread if need be; an event loop is not blocked."""
    call = _count_in(census, binding)
    try:
        passage = _admit(gate, call, mode)
        if isinstance(passage.token, Ticket):
            if _runtime.in_a_task():
                passage.token.leave()
                raise Misuse(f"`with {gate.name}:` would block the event loop while it waits; use `async with`")
            sync_gate.wait_in_line(gate, passage.token, call)
    except BaseException:
        census.leave(call)
        raise
    return passage


async def let_in_async(census: Census, gate: Gate[Any], binding: Binding, mode: Mode) -> Passage:
    """Pass a gate, waiting in a task if need be."""
    call = _count_in(census, binding)
    try:
        passage = _admit(gate, call, mode)
        if isinstance(passage.token, Ticket):
            await async_gate.wait_in_line(gate, passage.token, call)
    except BaseException:
        census.leave(call)
        raise
    return passage


def _count_in(census: Census, binding: Binding) -> Call:
    run_pending()
    call = Call(binding, _block, (), {})
    census.live.add(call)
    if census.draining:
        census.leave(call)
        census.refuse(call)
    return call


def _admit(gate: Gate[Any], call: Call, mode: Mode) -> Passage:
    owner = _runtime.whoami()
    if mode is Mode.OFF:
        return Passage(call, owner, False, None)
    if mode is Mode.SHADOW:
        token = Watching(gate).admit(call)
        return Passage(call, owner, token is not KEPT_OUT, token)
    try:
        return Passage(call, owner, True, gate.admit(call))
    except RejectedError as error:
        hooks.announce(gate, call, error, Mode.ENFORCE)
        raise


def _block() -> None:
    """Stand for the block that is guarded by hand."""
