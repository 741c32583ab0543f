"""The bad minute: what both services go through, phase by phase, and what the clients ask of them."""

from __future__ import annotations

from dataclasses import dataclass

RATE = 30.0
"""Calls a second that each client makes of each service, whatever comes back."""

SAFE_SHARE = 0.75
"""The share of calls that may be repeated: GET, or a gRPC method declared idempotent. The others place orders."""

ATTEMPT_TIMEOUT = 0.3
CALL_TIMEOUT = 1.5
ATTEMPTS = 3

GUARDED = "guarded"
NAIVE = "naive"
CLIENTS = (GUARDED, NAIVE)

GRPC_SERVICE = "demo.Quotes"
GET = "Get"
ORDER = "Order"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What a service is like for some seconds; each client has workers of its own there, so that neither is in the
    other's way.

    `workers` do one request at a time, each for a time between the two of `work`, in seconds. Up to `queue` more
    requests wait for a worker; others get a 503 at once. `resets` is the share of requests whose work is done, but
    whose connection is reset before the answer. None of this stops a worker whose client has gone away.
    """

    name: str
    seconds: float
    quick_seconds: float
    workers: int = 20
    work: tuple[float, float] = (0.005, 0.015)
    queue: int = 20
    resets: float = 0.0
    alive: bool = True

    def length(self, *, quick: bool) -> float:
        """Return how long it lasts, in seconds."""
        return self.quick_seconds if quick else self.seconds

    def __str__(self) -> str:
        if not self.alive:
            return f"{self.name}: connections are reset, and nobody listens"
        capacity = self.workers / (sum(self.work) / 2)
        rest = f"up to {self.queue} wait" if self.queue else "503 for the rest"
        resets = f", {self.resets:.0%} reset" if self.resets else ""
        return f"{self.name}: {capacity:.0f} requests/s can be done for each client, {rest}{resets}"


SLOW = (0.12, 0.20)
SCRIPT = (
    Phase(name="healthy", seconds=3.0, quick_seconds=1.0),
    Phase(name="slow", seconds=5.0, quick_seconds=2.0, workers=4, work=SLOW),
    Phase(name="503s, resets", seconds=5.0, quick_seconds=2.0, workers=4, work=SLOW, queue=0, resets=0.1),
    Phase(name="dead", seconds=4.0, quick_seconds=1.2, alive=False),
    Phase(name="healthy again", seconds=6.0, quick_seconds=2.5),
)
