"""A FIFO queue of calls that wait for their time, in threads, asyncio tasks and trio tasks.

The permits of a `WaitQueue` come back when calls end. Those of this queue come with time, such as the slots of a rate
limit. The time at which the first ticket may go is asked for only while it is the first, so that a place that a
cancelled call gives up moves the tickets behind it forward. No thread or task serves the queue: the holder of each
ticket has a timer, and grants what is due when it fires.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from resilience._call.wait_queue import CANCELLED, GRANTED, WAITING, Ticket, wake_all
from resilience._util.clock import clock
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state, state_lock

ROUNDING = 1e-6
"""How much too early a ticket may go, in seconds: more than two computations of one time differ by rounding, which is
coarser the longer the machine runs."""
LOOKS_AGAIN = 0.05
"""After how many seconds at least a ticket looks again whether it may go that is due and not the first, in case the
first one is lost. Otherwise it is woken when it becomes the first."""


class Schedule(Protocol):
    """Says when the tickets of a TimedQueue may go. Called with the lock held; it must not block."""

    def ready_at(self, ticket: TimedTicket) -> float:
        """Return the time at which a ticket may go that is the first in the queue; it may change until then."""
        ...

    def take(self, ticket: TimedTicket, at: float) -> None:
        """Take what the ticket asks for; `at` is the time at which it could go, which may be in the past."""
        ...

    def give_back(self, ticket: TimedTicket) -> None:
        """Give back what `take` took: the call was cancelled, and is not made."""
        ...


class TimedTicket(Ticket):
    """A place in a TimedQueue. Its holder must call `acquire` when its time has come, or `leave`.

    Attributes:
        cost: how much it asks for.
        since: when it joined the queue, in seconds of the library's monotonic clock.
        check_at: when its holder looks whether it may go, on the same clock.
    """

    __slots__ = ("_rescheduled", "check_at", "cost", "since")

    def __init__(self, queue: TimedQueue, until: float, cost: float, since: float, check_at: float) -> None:
        super().__init__(queue, until)
        self.cost = cost
        self.since = since
        self.check_at = check_at
        self._rescheduled = False

    def park_until(self) -> float:
        self._rescheduled = False  # before `check_at` is read: it may be changed by another thread
        return min(self.until, self.check_at)

    def add_waker(self, wake: Callable[[], object]) -> bool:
        return super().add_waker(wake) and not self._rescheduled

    def acquire(self) -> bool:
        if self.state is WAITING and clock.monotonic() >= self.check_at - ROUNDING:
            self._queue.grant(self)
        return super().acquire()

    @property
    def expected_at(self) -> float | None:
        return self.check_at

    def waits_past(self, deadline: Callable[[], float]) -> bool:
        return self.check_at > clock.monotonic() and self.check_at >= deadline()

    def reschedule(self, at: float) -> None:
        """Set when its holder looks again. Lock held; to be woken after that."""
        self.check_at = at
        self._rescheduled = True


class TimedQueue:
    """The queue of a gate whose permits come with time.

    Args:
        schedule: says when the first ticket may go.

    Attributes:
        release: does nothing: what came with time is used up.
        waiting: the waiting tickets, in order; read-only.
    """

    __slots__ = ("_schedule", "release", "waiting")

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.release: Callable[[], object] = _nothing
        self.waiting: OrderedDict[TimedTicket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.waiting)

    def join(self, ticket: TimedTicket) -> None:
        """Add a ticket at the end. Lock held."""
        self.waiting[ticket] = None

    def grant(self, looking: TimedTicket | None = None) -> None:
        """Grant what is due, in order, and have the first of the others look at the right time.

        Args:
            looking: a ticket whose time has come. If others are still before it, it looks again later.
        """
        if inside_state():
            put_off(self.grant)
            return
        to_wake: list[Ticket] = []
        try:
            with state_lock:
                self.grant_due(to_wake)
                now = clock.monotonic()
                if looking is not None and looking.state is WAITING and looking.check_at - ROUNDING <= now:
                    looking.check_at = now + max(LOOKS_AGAIN, now - looking.since)
        finally:
            wake_all(to_wake)
            if pending:
                run_pending()

    def remove(self, ticket: Any) -> None:
        """Cancel a ticket, unless it was acquired. What it asked for is left to those behind it."""
        if inside_state():
            put_off(partial(self.remove, ticket))
            return
        to_wake: list[Ticket] = []
        try:
            with state_lock:
                if ticket.state is WAITING:
                    ticket.state = CANCELLED
                    del self.waiting[ticket]
                elif ticket.state is GRANTED:
                    ticket.state = CANCELLED
                    self._schedule.give_back(ticket)
                self.grant_due(to_wake)
        finally:
            wake_all(to_wake)
            if pending:
                run_pending()

    def grant_due(self, to_wake: list[Ticket]) -> None:
        """Do as `grant`, with the lock held; tickets whose holders are to be woken are added to the list."""
        while self.waiting:
            ticket = next(iter(self.waiting))
            at = self._schedule.ready_at(ticket)
            if at - ROUNDING > clock.monotonic():
                if at != ticket.check_at:
                    if at < ticket.check_at:  # otherwise it notices when its timer rings
                        to_wake.append(ticket)
                    ticket.reschedule(at)
                return
            self._schedule.take(ticket, at)
            ticket.state = GRANTED
            del self.waiting[ticket]
            to_wake.append(ticket)


def _nothing() -> None:
    return None
