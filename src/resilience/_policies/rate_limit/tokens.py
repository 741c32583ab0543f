"""The tokens and tickets of rate limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from resilience._call.call import Call
from resilience._call.timed_queue import TimedQueue, TimedTicket
from resilience._policies.rate_limit.forecast import Charges
from resilience._policies.rate_limit.meter import Charge, Meter
from resilience._policies.rate_limit.source import Source
from resilience.errors import RejectedError

Quick: TypeAlias = "tuple[Call, int, float]"
"""The token of a call that costs 1: the call, its `calls_made`, and the mark of the charge."""
Corrections: TypeAlias = "list[tuple[Meter, Charge, float]]"
"""What was really used of charges."""


class Admitted:
    """The token of a call that was admitted at once.

    Attributes:
        call: the call; None once the head of its result has arrived.
        calls_made: how often its function had been called when it was admitted.
        charges: what it has taken.
    """

    __slots__ = ("call", "calls_made", "charges")

    def __init__(self, call: Call | None, charges: Charges) -> None:
        self.call = call
        self.calls_made = 0 if call is None else call.calls_made
        self.charges = charges

    @property
    def is_unused(self) -> bool:
        """Whether the function has not been called since."""
        return self.call is not None and self.call.calls_made == self.calls_made

    def of(self, meter: Meter, units: float) -> Corrections:
        """Return the corrections that say that the call has really taken so many units from a meter."""
        return [(one, charge, units) for one, charge in self.charges if one is meter]


class RateTicket(TimedTicket):
    """The ticket, and then the token, of a call that waits.

    Attributes:
        admitted: what is the token of a call that need not wait.
        charges: what the call takes.
        track: whether what it really takes will be settled afterwards.
    """

    __slots__ = ("admitted", "charges", "track")

    def __init__(self, queue: TimedQueue, until: float, now: float, at: float, admitted: Admitted, track: bool) -> None:
        super().__init__(queue, until, admitted.charges[0][1].cost, now, at)
        self.admitted = admitted
        self.charges = admitted.charges
        self.track = track

    def rejection(self, gate: Any, call: Call) -> RejectedError:
        error: RejectedError = gate.rejection_after_wait(self.charges, call)
        return error


def as_admitted(token: Quick | RateTicket, sources: Sequence[Source]) -> Admitted:
    """Return what was admitted with a token; `sources` are the rate limits that it was taken from."""
    if isinstance(token, RateTicket):
        return token.admitted
    call, calls_made, mark = token
    admitted = Admitted(call, [(sources[0].meter, Charge(1.0, mark))])
    admitted.calls_made = calls_made
    return admitted


Token: TypeAlias = "Quick | Admitted | RateTicket"
SETTLED = Admitted(None, ())
"""The token of a call that has nothing to be settled."""
