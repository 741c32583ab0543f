"""The events of pipelines as events of spans: their names and attributes."""

from __future__ import annotations

from typing import Any, Final

from resilience._util.label_values import label_text
from resilience.events import (
    BreakerChanged,
    Event,
    FallbackUsed,
    HedgeEnded,
    HedgeStarted,
    Rejected,
    RetryGivenUp,
    RetryScheduled,
    TimedOut,
)

EVENTS: Final[dict[type[Event], str]] = {
    RetryScheduled: "resilience.retry",
    RetryGivenUp: "resilience.give_up",
    HedgeStarted: "resilience.hedge",
    HedgeEnded: "resilience.hedge_end",
    Rejected: "resilience.rejection",
    BreakerChanged: "resilience.breaker_change",
    TimedOut: "resilience.timeout",
    FallbackUsed: "resilience.fallback",
}
"""The names of the events that spans get."""
ATTRIBUTES: Final = {
    "error_type": "error.type",
    **{
        name: f"resilience.{name}"
        for name in (
            *("policy", "attempt", "attempts", "wait", "elapsed", "reason", "result", "after", "retry_after", "mode"),
            *("previous", "state", "manual", "failure_rate", "scope", "timeout", "late", "age"),
        )
    },
}
"""What spans show of an event, by the name of its attribute: no `partition_key`, which may be data of a user."""


def attributes_of(event: Event) -> dict[str, Any]:
    """Return the attributes for the event of a span; those without a value are left out."""
    shown = {name: getattr(event, field, None) for field, name in ATTRIBUTES.items()}
    return {name: _plain(value) for name, value in shown.items() if value is not None and value != ""}


def _plain(value: object) -> object:
    """Return a value without its enumeration; of a string, one that can be encoded."""
    return label_text(str(value)) if isinstance(value, str) else value
