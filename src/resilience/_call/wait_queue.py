"""A FIFO queue of calls that wait for a permit, in threads, asyncio tasks and trio tasks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from resilience._util.clock import clock
from resilience._util.finalizers import pending, put_off, run_pending, settle_from_finalizer
from resilience._util.locks import inside_state, state_lock
from resilience.errors import RejectedError


class TicketState(Enum):
    """The state of a ticket. WAITING is followed by GRANTED or CANCELLED, GRANTED by ACQUIRED or CANCELLED."""

    WAITING = 1
    """The ticket is in the queue."""
    GRANTED = 2
    """A permit was granted to the ticket, and not acquired yet."""
    ACQUIRED = 3
    """The holder of the ticket has acquired the permit."""
    CANCELLED = 4
    """The holder has left, and has no permit."""


WAITING, GRANTED, ACQUIRED, CANCELLED = TicketState


class Ticket:
    """A place in a WaitQueue. Its holder must call `acquire` once a permit is granted, or `leave`.

    If a ticket with a granted permit is garbage-collected, because a Ctrl-C came before its holder could wait, the
    permit is granted to the next ticket, at the latest with the next call of any pipeline.

    Attributes:
        state: its TicketState.
        until: the time until which the holder waits at most, in seconds of the monotonic clock.
    """

    __slots__ = ("_queue", "_wake", "state", "until")

    def __init__(self, queue: WaitQueue | Any, until: float) -> None:
        self._queue: Any = queue
        self._wake: Callable[[], object] | None = None
        self.state = WAITING
        self.until = until

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Register a callback for the grant of a permit. Return False if the ticket does not wait any more."""
        with state_lock:
            self._wake = wake
            waits = self.state is WAITING
        if pending:
            run_pending()
        return waits and self.state is WAITING

    def acquire(self) -> bool:
        """Acquire the granted permit. Return False if none was granted."""
        # No lock: only the holder changes the state of a granted ticket. No call either: a Ctrl-C could interrupt it.
        if self.state is not GRANTED:
            return False
        self.state = ACQUIRED
        return True

    def park_until(self) -> float:
        """Return the time until which the holder now parks."""
        return self.until

    def parks_again(self, deadline: float) -> bool:
        """Return whether a holder that has parked and could not `acquire` parks again, before that deadline."""
        return self.state is WAITING and clock.monotonic() < min(self.until, deadline)

    @property
    def expected_at(self) -> float | None:
        """The time from which a permit is expected to be granted, on the same clock; None if that is not known."""
        return None

    def waits_past(self, deadline: Callable[[], float]) -> bool:
        """Return whether it is known that the wait ends at that time or later."""
        del deadline
        return False

    def rejection(self, gate: Any, call: Any) -> RejectedError:
        """Return the error of its gate for the call, whose wait has timed out."""
        error: RejectedError = gate.rejection(call)
        return error

    def release(self) -> None:
        """Release the acquired permit. The gate then grants free permits to waiting tickets."""
        self._queue.release()

    def leave(self) -> None:
        """Leave the queue. A permit that was granted in the meantime is granted to the next ticket."""
        self._queue.remove(self)

    def wake(self) -> None:
        """Call the holder's callback; if its event loop is closed, grant the permit to the next ticket."""
        wake = self._wake
        if wake is None:
            return  # the holder does not wait yet: `add_waker` will return False
        try:
            wake()
        except RuntimeError:
            self.leave()

    def __del__(self) -> None:
        if self.state is GRANTED:
            settle_from_finalizer(self.leave)


class WaitQueue:
    """The queue of a gate whose permits calls may wait for.

    Args:
        acquire: acquires a free permit without waiting; returns whether there was one.
        release: releases a permit.
        ticket_class: the class of the tickets.

    The first two are called with the lock of the queue held. They must not block, and must not call the queue. If
    `release` is a built-in function, a Ctrl-C cannot prevent it from running.

    Attributes:
        lock: the lock that guards the queue.
        release: releases a permit.
        waiting: the waiting tickets, in order; read-only.
    """

    __slots__ = ("_acquire", "_ticket_class", "lock", "release", "waiting")

    def __init__(
        self, acquire: Callable[[], bool], release: Callable[[], object], ticket_class: type[Ticket] = Ticket
    ) -> None:
        self._ticket_class = ticket_class
        self.lock = state_lock
        self._acquire = acquire
        self.release: Callable[[], object] = release
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.waiting)

    def enqueue(self, until: float, room: int) -> Ticket | None:
        """Add a ticket at the end of the queue, and return it. If a permit is free, it is granted.

        Args:
            until: the time until which the call waits at most, in seconds of the monotonic clock.
            room: the maximum length of the queue.

        Returns:
            The ticket; None if the queue is full, or if a finalizer or a signal handler made the call while this
            thread was changing the state of a policy.
        """
        if inside_state():
            return None
        ticket = self._ticket_class(self, until)
        granted: list[Ticket] = []
        try:
            with self.lock:
                if len(self.waiting) >= room:
                    return None
                self.waiting[ticket] = None
                self._grant_free(granted)
        finally:
            wake_all(granted)
            if pending:
                run_pending()
        return ticket

    def grant(self) -> None:
        """Grant free permits to waiting tickets. To be called after a permit was released."""
        if not self.waiting:
            return
        if inside_state():
            put_off(self.grant)
            return
        granted: list[Ticket] = []
        try:
            with self.lock:
                self._grant_free(granted)
        finally:
            wake_all(granted)
            if pending:
                run_pending()

    def remove(self, ticket: Ticket) -> None:
        """Cancel a ticket, unless its permit was acquired. A granted permit is released and granted to the next one."""
        if inside_state():
            put_off(partial(self.remove, ticket))
            return
        granted: list[Ticket] = []
        try:
            with self.lock:
                if ticket.state is WAITING:
                    ticket.state = CANCELLED
                    del self.waiting[ticket]
                elif ticket.state is GRANTED:
                    ticket.state = CANCELLED
                    self.release()
                    self._grant_free(granted)
        finally:
            wake_all(granted)
            if pending:
                run_pending()

    def _grant_free(self, granted: list[Ticket]) -> None:
        """Grant free permits in order. No call comes between acquiring and granting one, so a Ctrl-C cannot lose it."""
        while self.waiting:
            ticket = next(iter(self.waiting))
            if not self._acquire():
                return
            ticket.state = GRANTED
            del self.waiting[ticket]
            granted.append(ticket)


def wake_all(tickets: list[Ticket]) -> None:
    """Wake the holders of tickets with granted permits, without a lock; after a BaseException, the remaining ones."""
    try:
        while tickets:
            tickets.pop(0).wake()
    finally:
        if tickets:
            wake_all(tickets)
