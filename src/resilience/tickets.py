"""Waiting in line for a permit, first come first served, for threads, asyncio tasks and trio tasks alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

from resilience.locks import new_lock


class TicketState(Enum):
    """Where a ticket is in its life: WAITING, then GRANTED or GONE; GRANTED, then TAKEN or GONE."""

    WAITING = 1
    GRANTED = 2
    TAKEN = 3
    GONE = 4


class Ticket:
    """A place in a line. Whoever holds it must `take` what it is granted, or `leave`."""

    __slots__ = ("_line", "_wake", "state", "until")

    def __init__(self, line: Line, until: float) -> None:
        self._line = line
        self._wake: Callable[[], object] | None = None
        self.state = TicketState.WAITING
        self.until = until

    def park(self, wake: Callable[[], object]) -> bool:
        """Ask to be woken when the permit is granted; False when it is granted already."""
        with self._line.lock:
            self._wake = wake
            return self.state is TicketState.WAITING

    def take(self) -> bool:
        """Make the granted permit one's own; False when none was granted."""
        with self._line.lock:
            if self.state is not TicketState.GRANTED:
                return False
            self.state = TicketState.TAKEN
            return True

    def leave(self) -> None:
        """Give up the place. A permit granted in the meantime goes to the next in line."""
        self._line.remove(self)

    def forsake(self, ending: object) -> None:
        """Leave; in the form in which gates are settled."""
        del ending
        self.leave()

    def wake(self) -> None:
        """Tell the waiter; if its event loop is closed, hand the permit on."""
        wake = self._wake
        if wake is None:
            return  # not parked yet: `park` will see the grant
        try:
            wake()
        except RuntimeError:
            self.leave()


class Line:
    """The queue of one gate.

    Args:
        acquire: takes a free permit without waiting; returns whether there was one.
        release: puts a permit back.

    Both run under the line's lock, and must neither block nor call back.
    """

    __slots__ = ("_acquire", "_release", "_tickets", "lock")

    def __init__(self, acquire: Callable[[], bool], release: Callable[[], object]) -> None:
        self.lock = new_lock()
        self._acquire = acquire
        self._release = release
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, until: float, room: int) -> Ticket | None:
        """Take a place at the end, to wait until that time at most; None when `room` places are taken."""
        with self.lock:
            if len(self._tickets) >= room:
                return None
            ticket = Ticket(self, until)
            self._tickets[ticket] = None
            granted = self._grant()
        wake_all(granted)
        return ticket

    def serve(self) -> None:
        """Grant free permits to those who wait. Call it after a permit was put back."""
        if self._tickets:
            with self.lock:
                granted = self._grant()
            wake_all(granted)

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out of the line, wherever it is in its life."""
        granted: list[Ticket] = []
        with self.lock:
            if ticket.state is TicketState.WAITING:
                del self._tickets[ticket]
                ticket.state = TicketState.GONE
            elif ticket.state is TicketState.GRANTED:
                ticket.state = TicketState.GONE
                self._release()
                granted = self._grant()
        wake_all(granted)

    def _grant(self) -> list[Ticket]:
        granted: list[Ticket] = []
        while self._tickets and self._acquire():
            ticket, _ = self._tickets.popitem(last=False)
            ticket.state = TicketState.GRANTED
            granted.append(ticket)
        return granted


def wake_all(tickets: list[Ticket]) -> None:
    """Wake those who were granted something; no lock is held."""
    for ticket in tickets:
        ticket.wake()
