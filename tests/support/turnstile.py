"""A gate with a queue, for tests of the drivers."""

from __future__ import annotations

from collections import deque

from resilience import Call, Ending, Gate, RejectedError, RejectReason, Ticket, WaitQueue
from resilience._util.clock import clock


class Turnstile(Gate[Ticket | None]):
    """At most `limit` at once, `room` may wait, each at most `patience` seconds."""

    kind = "turnstile"

    def __init__(self, limit: int = 1, room: int = 10, patience: float = 1.0) -> None:
        super().__init__()
        self.limit = limit
        self.room = room
        self.patience = patience
        self.free = deque([None] * limit)
        self.line = WaitQueue(self.take, self.put)
        self.endings: list[str] = []
        self.peak = 0

    def take(self) -> bool:
        try:
            self.free.pop()
        except IndexError:
            return False
        self.peak = max(self.peak, self.in_flight)
        return True

    def put(self) -> None:
        self.free.append(None)

    @property
    def in_flight(self) -> int:
        return self.limit - len(self.free)

    def admit(self, call: Call) -> Ticket | None:
        if not len(self.line) and self.take():
            return None
        ticket = self.line.enqueue(clock.monotonic() + self.patience, self.room)
        if ticket is None:
            raise RejectedError("full", reason=RejectReason.FULL, policy=self.name, pipeline=call.pipeline.name)
        return ticket

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        self.endings.append(ending.kind)
        self.put()
        self.line.grant()

    def leaked(self) -> str | None:
        if self.in_flight or len(self.line):
            return f"in flight {self.in_flight}, queued {len(self.line)}"
        return None
