"""Waiting in line for a permit, first come first served, for threads, asyncio tasks and trio tasks alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

from resilience._util.finalizers import settle_from_finalizer
from resilience._util.locks import new_lock


class TicketState(Enum):
    """Where a ticket is in its life: WAITING, then GRANTED or GONE; GRANTED, then TAKEN or GONE."""

    WAITING = 1
    GRANTED = 2
    ACQUIRED = 3
    CANCELLED = 4


WAITING, GRANTED, ACQUIRED, CANCELLED = TicketState


class Ticket:
    """A place in a line. Whoever holds it must `take` what it is granted, or `leave`.

    One that is dropped with a permit, because a Ctrl-C came before its holder could wait, hands it on, at the next
    call of any pipeline at the latest.
    """

    __slots__ = ("_line", "_wake", "state", "until")

    def __init__(self, line: WaitQueue, until: float) -> None:
        self._line = line
        self._wake: Callable[[], object] | None = None
        self.state = WAITING
        self.until = until

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Ask to be woken when the permit is granted; False when it is granted already."""
        with self._line.lock:
            self._wake = wake
            return self.state is WAITING

    def acquire(self) -> bool:
        """Make the granted permit one's own; False when none was granted."""
        # Only its holder moves a granted ticket on, so it takes no lock; and without a call no Ctrl-C comes between.
        if self.state is not GRANTED:
            return False
        self.state = ACQUIRED
        return True

    def leave(self) -> None:
        """Give up the place. A permit granted in the meantime goes to the next in line."""
        self._line.remove(self)

    def wake(self) -> None:
        """Tell the waiter; if its event loop is closed, hand the permit on."""
        wake = self._wake
        if wake is None:
            return  # not parked yet: `park` will see the grant
        try:
            wake()
        except RuntimeError:
            self.leave()

    def __del__(self) -> None:
        if self.state is GRANTED:
            settle_from_finalizer(self.leave)


class WaitQueue:
    """The queue of one gate. `waiting` holds its tickets in order; look at it, but change nothing.

    Args:
        acquire: takes a free permit without waiting; returns whether there was one.
        release: puts a permit back.

    Both run under the line's lock, and must neither block nor call back. If `release` is a built-in, a Ctrl-C cannot
    come before it.
    """

    __slots__ = ("_acquire", "_release", "lock", "waiting")

    def __init__(self, acquire: Callable[[], bool], release: Callable[[], object]) -> None:
        self.lock = new_lock()
        self._acquire = acquire
        self._release = release
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.waiting)

    def enqueue(self, until: float, room: int) -> Ticket | None:
        """Take a place at the end, to wait until that time at most; None when `room` places are taken."""
        ticket = Ticket(self, until)
        granted: list[Ticket] = []
        try:
            with self.lock:
                if len(self.waiting) >= room:
                    return None
                self.waiting[ticket] = None
                self._grant_free(granted)
        finally:
            wake_all(granted)
        return ticket

    def grant(self) -> None:
        """Grant free permits to those who wait. Call it after a permit was put back."""
        if self.waiting:
            granted: list[Ticket] = []
            try:
                with self.lock:
                    self._grant_free(granted)
            finally:
                wake_all(granted)

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out of the line, wherever it is in its life."""
        granted: list[Ticket] = []
        try:
            with self.lock:
                if ticket.state is WAITING:
                    ticket.state = CANCELLED
                    del self.waiting[ticket]
                elif ticket.state is GRANTED:
                    ticket.state = CANCELLED
                    self._release()
                    self._grant_free(granted)
        finally:
            wake_all(granted)

    def _grant_free(self, granted: list[Ticket]) -> None:
        """Grant what is free, in order. No call, and so no Ctrl-C, comes between a permit and its new owner."""
        while self.waiting:
            ticket = next(iter(self.waiting))
            if not self._acquire():
                return
            ticket.state = GRANTED
            del self.waiting[ticket]
            granted.append(ticket)


def wake_all(tickets: list[Ticket]) -> None:
    """Wake those who were granted something, the others also when a Ctrl-C strikes; no lock is held."""
    try:
        while tickets:
            tickets.pop(0).wake()
    finally:
        if tickets:
            wake_all(tickets)
