"""The gate that counts the calls, or the attempts, of a pipeline for metrics, without building events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from resilience._drivers.event_gate import Timed, outcome_of, without_call
from resilience._outcome.ending import Ending
from resilience._policies.shapes import Gate
from resilience._util.clock import clock
from resilience.events._types import Outcome

MOST_PENDING = 1024
"""The number of durations that may be kept before they are added up."""


class MeterGate(Gate[Timed]):
    """Counts calls or attempts by outcome, and their durations. A chain contains it only while there are metrics.

    Its driver calls `ok` for a good ending, which must be fast and safe under threads, and `settle` for all others.

    Args:
        is_of_calls: whether it counts calls; otherwise attempts.

    Attributes:
        ok: counts a call or an attempt with a good ending, of which there was a single attempt, given its duration in
            seconds.
        pending: the durations that `ok` has taken, and that `flush` is still to add up; the driver calls that when they
            are many.
    """

    ok: Callable[[float], object]

    def __init__(self, *, is_of_calls: bool) -> None:
        super().__init__()
        self.pending: list[float] = []
        self._is_of_calls = is_of_calls

    @abstractmethod
    def ended(self, outcome: Outcome, seconds: float, attempts: int) -> None:
        """Count a call or an attempt.

        Args:
            outcome: how it ended.
            seconds: its duration.
            attempts: the number of attempts that were made.
        """

    def flush(self) -> None:
        """Add up what is pending."""

    def admit(self, call: Any) -> Timed:
        """Return the call, the time, and how often the function has been called by then."""
        return call, clock.monotonic(), call.calls_made

    def on_response_head(self, token: Timed) -> Timed:
        """Drop the call, since the settlement of its stream must not refer to it."""
        return without_call(token)

    def settle(self, token: Timed, ending: Ending) -> None:
        """Count the call or the attempt."""
        call, started, calls_made = token
        seconds = clock.monotonic() - started
        outcome = outcome_of(ending) if self._is_of_calls else Outcome(ending.kind)
        self.ended(outcome, seconds, call.calls_made - calls_made)
