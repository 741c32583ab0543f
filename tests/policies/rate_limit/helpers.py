"""What the tests of the rate limit share."""

from __future__ import annotations

from collections.abc import Sequence

from resilience import Call, RateLimit, Ticket
from resilience._policies.rate_limit.gate import RateGate
from resilience._policies.rate_limit.tokens import RateTicket, Token
from resilience._util.clock import clock


def call_of(gate: RateGate) -> Call:
    return Call.make(gate.entry()[1], int, (), {})


def admitted(gate: RateGate) -> Token:
    """Admit a call that need not wait."""
    token = gate.admit(call_of(gate))
    assert not isinstance(token, Ticket)
    return token


def queued(gate: RateGate) -> RateTicket:
    """Admit a call that has to wait."""
    token = gate.admit(call_of(gate))
    assert isinstance(token, RateTicket)
    return token


def exceeds(times: Sequence[float], rate: float, burst: float, costs: Sequence[float] | None = None) -> list[str]:
    """Return the intervals in which more was admitted than the burst and what comes in, from times in order."""
    amounts = [1.0] * len(times) if costs is None else costs
    wrong: list[str] = []
    for first, begin in enumerate(times):
        taken = 0.0
        for at, amount in zip(times[first:], amounts[first:], strict=True):
            taken += amount
            if taken > burst + rate * (at - begin) + 1e-6:
                wrong.append(f"{taken:g} in {at - begin:g} s")
    return wrong


def empty(limit: RateLimit) -> None:
    """Take what the bucket holds."""
    while limit.available >= 1:
        limit.admit(call_of(limit))


def now() -> float:
    return clock.monotonic()
