"""The events that pipelines publish, and what listens to them.

    with pipeline.subscribe(print, events=(events.RetryScheduled,)):
        ...

No event object is built that nobody listens to. What a listener raises is logged once and never reaches the call.
"""

from resilience.events._bus import Listener, Subscription, subscribe
from resilience.events._types import (
    AttemptEnded,
    BreakerChanged,
    CallEnded,
    Event,
    FallbackUsed,
    GiveUpReason,
    Mode,
    Outcome,
    Rejected,
    RetryGivenUp,
    RetryScheduled,
    State,
    TimedOut,
    TimeoutScope,
)

__all__ = [
    "AttemptEnded",
    "BreakerChanged",
    "CallEnded",
    "Event",
    "FallbackUsed",
    "GiveUpReason",
    "Listener",
    "Mode",
    "Outcome",
    "Rejected",
    "RetryGivenUp",
    "RetryScheduled",
    "State",
    "Subscription",
    "TimedOut",
    "TimeoutScope",
    "subscribe",
]
