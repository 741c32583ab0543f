"""What is noted while the demo runs: each call, each attempt, and each change of a breaker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from resilience._demo.script import BIN, Arm, ServiceName
from resilience._util.clock import clock


@dataclass(frozen=True)
class Arrival:
    """A call that is to be made by each arm.

    Attributes:
        number: its number among the calls of its service.
        due: when, in seconds since the start of the load.
        order: whether it places an order.
    """

    number: int
    due: float
    order: bool


@dataclass(frozen=True)
class CallRecord:
    """A call that has ended.

    Attributes:
        service: the service that was called.
        arm: the way in which it was called.
        arrival: the call.
        phase: the name of the phase in which it was due.
        served: whether it was answered; otherwise its caller got an error.
        seconds: how long the caller waited.
    """

    service: ServiceName
    arm: Arm
    arrival: Arrival
    phase: str
    served: bool
    seconds: float


@dataclass(frozen=True)
class BreakerRecord:
    """A change of a breaker.

    Attributes:
        service: the service that it guards.
        at: when, in seconds since the start of the load.
        state: the new state: "closed", "open" or "half_open".
    """

    service: ServiceName
    at: float
    state: str


@dataclass
class Records:
    """Everything that was noted.

    Attributes:
        began: the start of the load, on the monotonic clock.
        calls: the calls that have ended.
        breakers: the changes of breakers.
        sent: the attempts that the clients sent, by service, arm and half second.
        lag: the greatest delay of a call behind its time, in seconds: more than a few milliseconds mean that the
            machine is busy.
    """

    began: float = 0.0
    calls: list[CallRecord] = field(default_factory=list[CallRecord])
    breakers: list[BreakerRecord] = field(default_factory=list[BreakerRecord])
    sent: Counter[tuple[ServiceName, Arm, int]] = field(default_factory=Counter[tuple[ServiceName, Arm, int]])
    lag: float = 0.0

    def now(self) -> float:
        """Return the seconds since the start of the load; 0 before that."""
        return max(0.0, clock.monotonic() - self.began)

    def note_attempt(self, service: ServiceName, arm: Arm) -> None:
        """Count an attempt that a client sends now."""
        self.sent[service, arm, int(self.now() / BIN)] += 1
