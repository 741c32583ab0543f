"""Entering a block guarded by a gate, for `with` and `async with`: the first half of what a gate driver does."""

from __future__ import annotations

from typing import Any

from resilience import _runtime
from resilience._call.call import CallOptions
from resilience._call.entry import Admit, BlockEntry
from resilience._call.running_call import RunningCall
from resilience._call.wait_queue import Ticket
from resilience._drivers import async_gate, hooks, sync_gate
from resilience._drivers.shadow import REJECTED, ShadowGate
from resilience._pipeline.in_flight import InFlight
from resilience._policies.shapes import Gate
from resilience._util.finalizers import run_pending
from resilience.errors import RejectedError, UsageError
from resilience.events._types import Mode


def enter_block(
    in_flight: InFlight, gate: Gate[Any], options: CallOptions, mode: Mode, admit: Admit | None = None
) -> BlockEntry:
    """Admit a block through a gate, waiting in the thread if necessary.

    Raises:
        RejectedError: the gate or a drain rejects the block.
        UsageError: the gate would have to wait in a task, which would block its event loop.
    """
    call = _count_in(in_flight, options)
    try:
        entry = _admit(gate, call, mode, admit)
        if isinstance(entry.token, Ticket):
            if _runtime.in_a_task():
                entry.token.leave()
                raise UsageError(f"`with {gate.name}:` would block the event loop while it waits; use `async with`")
            sync_gate.wait_for_ticket(gate, entry.token, call)
    except BaseException:
        in_flight.leave(call)
        raise
    call.calls_made = 1
    return entry


async def aenter_block(
    in_flight: InFlight, gate: Gate[Any], options: CallOptions, mode: Mode, admit: Admit | None = None
) -> BlockEntry:
    """Admit a block through a gate, waiting in the task if necessary.

    Raises:
        RejectedError: the gate or a drain rejects the block.
    """
    call = _count_in(in_flight, options)
    try:
        entry = _admit(gate, call, mode, admit)
        if isinstance(entry.token, Ticket):
            await async_gate.wait_for_ticket(gate, entry.token, call)
    except BaseException:
        in_flight.leave(call)
        raise
    call.calls_made = 1
    return entry


def _count_in(in_flight: InFlight, options: CallOptions) -> RunningCall:
    """Return a call that stands for the block, counted in; raise a rejection during a drain."""
    run_pending()
    call = RunningCall.make(options, block, (), {})
    in_flight.calls.add(call)
    if in_flight.draining:
        in_flight.leave(call)
        in_flight.host.reject(call)
    return call


def _admit(gate: Gate[Any], call: RunningCall, mode: Mode, admit: Admit | None) -> BlockEntry:
    """Call the gate's `admit`, or what was given in place of it, in a mode."""
    if mode is Mode.OFF:
        return BlockEntry(call, False, None)
    if mode is Mode.SHADOW:
        token = ShadowGate(gate, admit).admit(call)
        return BlockEntry(call, token is not REJECTED, token)
    try:
        return BlockEntry(call, True, (admit or gate.admit)(call))
    except RejectedError as error:
        hooks.publish_rejection(gate, call, error, Mode.ENFORCE)
        raise


def block() -> None:
    """Stand-in for the function of a call: a block has none. Its name is the operation in events."""
