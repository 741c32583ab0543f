"""The gate that publishes AttemptEnded and CallEnded events."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from resilience._call.call import PipelineInfo
from resilience._call.running_call import RunningCall
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.shapes import Gate
from resilience._util.clock import clock
from resilience.errors import DeadlineExceededError, RejectedError
from resilience.events._types import AttemptEnded, Event, Outcome


class CallFacts(NamedTuple):
    """The attributes of a call that has returned a stream, in the place of the call.

    The call refers to the settlement of its stream. If that referred to the call, a stream that is dropped would be
    settled by a cyclic collection, and not at once.
    """

    operation: str
    shown_target: str | None
    attempt: int
    calls_made: int


Timed: TypeAlias = "tuple[RunningCall | CallFacts, float, int]"
"""A call, the time when it was admitted, and how often its function had been called by then."""


def without_call(timed: Timed) -> Timed:
    """Return the same with the facts of the call in its place."""
    call, started, calls_made = timed
    return CallFacts(call.operation, call.shown_target, call.attempt, call.calls_made), started, calls_made


class EventGate(Gate[Timed]):
    """Publishes an event for each attempt or call that ends. A chain contains it only while there is a listener.

    Args:
        info: the pipeline.
        event: AttemptEnded or CallEnded.
    """

    def __init__(self, info: PipelineInfo, event: type[Event]) -> None:
        super().__init__()
        self._info = info
        self._event = event

    def admit(self, call: Any) -> Timed:
        """Return the call, the time, and how often the function has been called by then."""
        return call, clock.monotonic(), call.calls_made

    def on_response_head(self, token: Timed) -> Timed:
        """Drop the call; see CallFacts."""
        return without_call(token)

    def settle(self, token: Timed, ending: Ending) -> None:
        """Publish the event."""
        call, started, calls_made = token
        elapsed = clock.monotonic() - started
        if self._event is AttemptEnded:
            self._publish(call, attempt=call.attempt, outcome=Outcome(ending.kind), elapsed=elapsed)
            return
        outcome = outcome_of(ending)
        self._publish(call, attempts=call.calls_made - calls_made, outcome=outcome, elapsed=elapsed)

    def _publish(self, call: RunningCall | CallFacts, **facts: Any) -> None:
        """Publish the event with the facts of the call."""
        info = self._info
        info.bus.publish(
            self._event, pipeline=info.name, policy="", operation=call.operation, target=call.shown_target, **facts
        )


def outcome_of(ending: Ending) -> Outcome:
    """Return the outcome of a call."""
    if ending.replaced:
        return Outcome.FALLBACK
    if ending.kind is EndingKind.ABANDONED:
        if isinstance(ending.error, RejectedError):
            return Outcome.REJECTED
        if isinstance(ending.error, DeadlineExceededError):  # it passed before the function was called
            return Outcome.TIMED_OUT
    return Outcome(ending.kind)
