"""The gate that tells how calls and attempts end."""

from __future__ import annotations

from typing import Any

from resilience._call.call import Call, PipelineInfo
from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.shapes import Gate
from resilience._util.clock import clock
from resilience.errors import RejectedError
from resilience.events._types import AttemptEnded, Event, Outcome


class EventGate(Gate[tuple[Call, float, int]]):
    """Tells how attempts or calls end; in the chain only while somebody listens.

    Args:
        site: of the pipeline.
        event: AttemptEnded or CallEnded.
    """

    def __init__(self, site: PipelineInfo, event: type[Event]) -> None:
        super().__init__()
        self._site = site
        self._event = event

    def admit(self, call: Call) -> tuple[Call, float, int]:
        """Note the time, and how often the function was called before."""
        return call, clock.monotonic(), call.calls_made

    def settle(self, token: tuple[Call, float, int] | Ticket, ending: Ending) -> None:
        """Publish."""
        if isinstance(token, Ticket):
            return
        call, started, before = token
        elapsed = clock.monotonic() - started
        outcome = Outcome(ending.kind)
        if self._event is AttemptEnded:
            self._publish(call, attempt=call.attempt, outcome=outcome, elapsed=elapsed)
            return
        if ending.replaced:
            outcome = Outcome.FALLBACK
        elif ending.kind is EndingKind.ABANDONED and isinstance(ending.error, RejectedError):
            outcome = Outcome.REJECTED
        self._publish(call, attempts=call.calls_made - before, outcome=outcome, elapsed=elapsed)

    def _publish(self, call: Call, **facts: Any) -> None:
        self._site.bus.publish(
            self._event, pipeline=self._site.name, policy="", operation=call.operation, target=call.target, **facts
        )
