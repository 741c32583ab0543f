"""The script of the day: what the services go through, phase by phase, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

RATE = 25.0
"""Calls a second that each arm makes of each service."""
ORDER_SHARE = 0.25
"""The share of calls that place an order, which is not safe to repeat. The others read a quote."""
ATTEMPT_TIMEOUT = 1.0
QUICK_ATTEMPT_TIMEOUT = 0.5
"""For `--quick`, whose brownout is too short for callers that wait for a second."""
CALL_TIMEOUTS = 4.0
"""The timeout of a call, in timeouts of an attempt: all attempts, and the waits between them."""
ATTEMPTS = 3
BIN = 0.5
"""The seconds over which calls and attempts are counted for the plots."""

GRPC_SERVICE = "demo.Shop"
QUOTE, ORDER = "Quote", "Order"


class Arm(StrEnum):
    """A way to call the services."""

    BARE = "bare"
    """The client as it is: one attempt."""
    TENACITY = "tenacity"
    """The retry decorator that most programs have."""
    STANDARD = "standard"
    """The standard pipeline of this library."""


class ServiceName(StrEnum):
    """A service."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What a service is like for some seconds. Each arm has workers of its own there, all as described.

    Attributes:
        name: the name that is shown.
        seconds: how long it lasts.
        workers: the number of workers; each does one request at a time.
        work: the bounds of the time that a request takes a worker, in seconds.
        queue: the number of requests that wait for a worker; further ones are refused with 503 or UNAVAILABLE.
        resets: the share of requests whose work is done, and whose connection is then reset before the answer.
        alive: whether there is a service at all; if not, each connection is reset when it is made.
        sick: whether the calls made meanwhile count as load on a sick service.
        note: what is shown in place of a description that is made from the above.
    """

    name: str
    seconds: float
    workers: int = 20
    work: tuple[float, float] = (0.005, 0.015)
    queue: int = 200
    resets: float = 0.0
    alive: bool = True
    sick: bool = True
    note: str = ""

    @property
    def capacity(self) -> float:
        """The requests per second that the workers of one arm can do."""
        return self.workers / (sum(self.work) / 2)

    @property
    def words(self) -> str:
        """What happens, in one line."""
        if self.note:
            return self.note
        if not self.alive:
            return "each connection is reset at once"
        if self.capacity > 2 * RATE:
            slow = "answers in 10 ms"
        else:
            slow = f"can do {self.capacity:.0f} of {RATE:.0f} calls a second"
        excess = ", 503 for the rest" if self.queue == 0 else ", the rest waits" if self.capacity < RATE else ""
        return slow + excess + (f", {self.resets:.0%} of the answers are lost to a reset" if self.resets else "")


DAY = (
    Phase(name="healthy", seconds=3.0, sick=False),
    Phase(name="brownout", seconds=14.0, workers=4, work=(0.15, 0.25)),
    Phase(name="503s", seconds=3.0, workers=5, work=(0.2, 0.3), queue=0),
    Phase(name="resets", seconds=3.0, resets=0.2),
    Phase(name="dead", seconds=4.0, alive=False),
    Phase(name="healthy again", seconds=7.0, sick=False),
)
QUICK_DAY = (
    Phase(name="healthy", seconds=0.4, sick=False),
    Phase(name="brownout", seconds=7.0, workers=2, work=(0.07, 0.13)),
    Phase(name="503s", seconds=0.4, workers=5, work=(0.2, 0.3), queue=0),
    Phase(name="resets", seconds=0.4, resets=0.2),
    Phase(name="dead", seconds=0.4, alive=False),
    Phase(name="healthy again", seconds=1.4, sick=False),
)
"""For `--quick`: as many calls a second, by fewer workers that are faster, since callers wait for half as long."""
PHASES = (*DAY, *QUICK_DAY)


@dataclass(frozen=True)
class Span:
    """A phase with its place in the day.

    Attributes:
        phase: the phase.
        start: when it begins, in seconds since the start of the load.
        end: when it ends.
    """

    phase: Phase
    start: float
    end: float


def spans(phases: Sequence[Phase], *, scale: float = 1.0) -> list[Span]:
    """Lay phases one after another.

    Args:
        phases: the phases.
        scale: a factor for all lengths.
    """
    found: list[Span] = []
    at = 0.0
    for phase in phases:
        end = at + scale * phase.seconds
        found.append(Span(phase, at, end))
        at = end
    return found


def span_at(day: Sequence[Span], at: float) -> Span:
    """Return the span of a time; the last one for times after its end."""
    return next((span for span in day if at < span.end), day[-1])
