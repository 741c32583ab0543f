"""The events that pipelines publish, and what listens to them.

    with pipeline.subscribe(print, events=(events.RetryScheduled,)):
        ...

No event object is built that nobody listens to. What a listener raises is logged once and never reaches the call.
"""

from resilience._util.exports import set_public_module as _set_public_module
from resilience.events._bus import Listener, Subscription, subscribe
from resilience.events._types import (
    AttemptEnded,
    BreakerChanged,
    BreakerState,
    CallEnded,
    Event,
    FallbackUsed,
    GiveUpReason,
    Mode,
    Outcome,
    Rejected,
    RetryGivenUp,
    RetryScheduled,
    TimedOut,
    TimeoutScope,
)

__all__ = [
    "AttemptEnded",
    "BreakerChanged",
    "BreakerState",
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
    "Subscription",
    "TimedOut",
    "TimeoutScope",
    "subscribe",
]

_set_public_module(__name__, __all__, globals())
