"""What the drivers publish about the waits of calls for a policy."""

from __future__ import annotations

from typing import Any

from resilience._call.running_call import RunningCall
from resilience._policies.shapes import Gate
from resilience._util.clock import clock
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
