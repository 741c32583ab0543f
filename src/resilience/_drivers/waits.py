"""The waits of calls for a policy: what is published about them, and what is done if they are interrupted."""

from __future__ import annotations

from functools import partial
from typing import Any

from resilience._call.running_call import RunningCall
from resilience._call.wait_queue import Ticket, TicketState
from resilience._drivers.hooks import settle_gate
from resilience._outcome.ending import ABANDONED
from resilience._policies.shapes import Gate
from resilience._util.clock import clock
from resilience._util.finalizers import settle_from_finalizer
from resilience.events._policy_types import Waited


def publish_wait(gate: Gate[Any], call: RunningCall, started: float, *, acquired: bool) -> None:
    """Publish that a call has waited for a gate.

    Args:
        gate: the gate.
        call: the call.
        started: when the wait began, in seconds of the monotonic clock.
        acquired: whether the gate has admitted the call.
    """
    call.pipeline.publish(
        Waited,
        gate,
        call,
        seconds=clock.monotonic() - started,
        admitted=acquired,
        partition_key=getattr(gate, "_key", None),
    )


def leave_after_error(gate: Gate[Any], ticket: Ticket, error: BaseException) -> None:
    """Leave the queue after an exception, or settle a permit that was acquired just before it.

    After a GeneratorExit that is deferred, since it runs inside a finalizer.
    """
    leave = partial(settle_gate, gate, ticket, ABANDONED) if ticket.state is TicketState.ACQUIRED else ticket.leave
    if error.__class__ is GeneratorExit:
        settle_from_finalizer(leave)
    else:
        leave()
