"""The events that pipelines publish, and subscriptions to them.

    with pipeline.subscribe(print, events=(events.RetryScheduled,)):
        ...

An event object is built only if a listener wants it. An exception in a listener is logged once and does not affect the
call.
"""

from resilience._outcome.failure import Failure
from resilience._util.exports import set_public_module as _set_public_module
from resilience.errors import RejectReason
from resilience.events._bus import Listener, Subscription, subscribe
from resilience.events._policy_types import (
    CooldownEnded,
    CooldownStarted,
    FaultInjected,
    HedgeEnded,
    HedgeResult,
    HedgeStarted,
    Waited,
)
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
    Queued,
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
    "CooldownEnded",
    "CooldownStarted",
    "Event",
    "Failure",
    "FallbackUsed",
    "FaultInjected",
    "GiveUpReason",
    "HedgeEnded",
    "HedgeResult",
    "HedgeStarted",
    "Listener",
    "Mode",
    "Outcome",
    "Queued",
    "RejectReason",
    "Rejected",
    "RetryGivenUp",
    "RetryScheduled",
    "Subscription",
    "TimedOut",
    "TimeoutScope",
    "Waited",
    "subscribe",
]

_set_public_module(__name__, __all__, globals())
