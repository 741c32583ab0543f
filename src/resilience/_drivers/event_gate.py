"""The gate that publishes AttemptEnded and CallEnded events."""

from __future__ import annotations

from typing import Any

from resilience._call.call import PipelineInfo
from resilience._call.running_call import RunningCall
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.shapes import Gate
from resilience._util.clock import clock
from resilience.errors import RejectedError
from resilience.events._types import AttemptEnded, Event, Outcome


class EventGate(Gate[tuple[RunningCall, float, int]]):
    """Publishes an event for each attempt or call that ends. A chain contains it only while there is a listener.

    Args:
        info: the pipeline.
        event: AttemptEnded or CallEnded.
    """

    def __init__(self, info: PipelineInfo, event: type[Event]) -> None:
        super().__init__()
        self._info = info
        self._event = event

    def admit(self, call: Any) -> tuple[RunningCall, float, int]:
        """Return the call, the time, and how often the function has been called by then."""
        return call, clock.monotonic(), call.calls_made

    def settle(self, token: tuple[RunningCall, float, int], ending: Ending) -> None:
        """Publish the event."""
        call, started, calls_made = token
        elapsed = clock.monotonic() - started
        if self._event is AttemptEnded:
            self._publish(call, attempt=call.attempt, outcome=Outcome(ending.kind), elapsed=elapsed)
            return
        outcome = outcome_of(ending)
        self._publish(call, attempts=call.calls_made - calls_made, outcome=outcome, elapsed=elapsed)

    def _publish(self, call: RunningCall, **facts: Any) -> None:
        """Publish the event with the facts of the call."""
        info = self._info
        info.bus.publish(
            self._event, pipeline=info.name, policy="", operation=call.operation, target=call.target, **facts
        )


def outcome_of(ending: Ending) -> Outcome:
    """Return the outcome of a call."""
    if ending.replaced:
        return Outcome.FALLBACK
    if ending.kind is EndingKind.ABANDONED and isinstance(ending.error, RejectedError):
        return Outcome.REJECTED
    return Outcome(ending.kind)
