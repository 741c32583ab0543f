"""The pause that a server has asked for, the calls that wait for its end, and how they come back one by one."""

from __future__ import annotations

from collections import deque
from typing import Any

from resilience._call.timed_queue import TimedQueue, TimedTicket
from resilience._call.wait_queue import Ticket
from resilience._util.clock import FOREVER, clock

MINUTE = 60.0
"""The seconds over which the share of closed time is measured."""
RESOLUTION = 1.0
"""Pauses that begin within so many seconds are remembered as one."""


class CooldownTicket(TimedTicket):
    """The place of a call that waits for the end of a pause.

    Attributes:
        slot: when it may go, in seconds of the library's monotonic clock; None before it is the first, and the pause
            over.
    """

    __slots__ = ("slot",)

    slot: float | None


class Pause:
    """The pause, and the queue of the calls that wait for it. All its methods but `closed` want the state lock held.

    While it lasts, no call is admitted. Then the waiting calls go in order, at random times until `spread_end`, as many
    independent uniform times would be. Each time is drawn when its call becomes the first: of m uniform times in the
    remaining R seconds, the smallest is distributed as R * (1 - U ** (1 / m)).

    Attributes:
        queue: the waiting calls. The first looks whether it may go at the end of the pause, and then at its slot; the
            others at `spread_end`, so that a first one that is lost does not stop the others.
        ends: when the pause ends, in seconds of the library's monotonic clock.
        spread_end: when the last of the waiting calls goes at the latest.
    """

    __slots__ = ("_began", "_closed_since", "_closed_spans", "_hinted_at", "_last_went", "ends", "queue", "spread_end")

    def __init__(self) -> None:
        self.queue = TimedQueue(self)
        self.ends = self.spread_end = -FOREVER
        self._began = self._closed_since = self._hinted_at = self._last_went = -FOREVER
        self._closed_spans: deque[tuple[float, float, float]] = deque(maxlen=round(MINUTE))
        """The pauses of the last minute but the latest: their beginning, their end, the seconds closed in between."""

    def closed(self, now: float) -> bool:
        """Return whether the pause lasts. It is over if the clock was set back, as by virtual time."""
        return self._hinted_at <= now < self.ends

    def holds(self, now: float) -> bool:
        """Return whether a call that comes now has to wait: the pause lasts, or earlier calls still wait."""
        return bool(self.queue.waiting) or self.closed(now)

    def extend(self, now: float, seconds: float, spread: float) -> bool:
        """Begin a pause, or extend the present one; return whether it does not end later than that already.

        Args:
            now: the time.
            seconds: the seconds from now.
            spread: the share of them over which the waiting calls are spread after that.
        """
        ends = now + seconds
        closed = self.closed(now)
        if closed and ends <= self.ends:
            return False
        if not self.holds(now):
            self._began = now
            self.spread_end = self._last_went = -FOREVER
        if not closed:
            self._remember_span(now)
            self._closed_since = now
        self._hinted_at = now
        self.ends = ends
        self.spread_end = max(self.spread_end, ends + spread * seconds)
        look_at = ends  # those who look earlier find that they may not go, and then wait until this
        for ticket in self.queue.waiting:
            self._postpone(ticket, look_at)
            look_at = self.spread_end
        return True

    def _postpone(self, ticket: Any, look_at: float) -> None:
        ticket.slot = None
        ticket.check_at = look_at

    def join(self, now: float, until: float, to_wake: list[Ticket]) -> CooldownTicket:
        """Return the place of a call at the end of the queue.

        Args:
            now: the time.
            until: when it gives up waiting.
            to_wake: gets the tickets whose holders are to be woken without the lock.
        """
        look_at = self.spread_end if self.queue.waiting else self.ends
        ticket = CooldownTicket(self.queue, until, 1.0, now, look_at)
        ticket.slot = None
        self.queue.join(ticket)
        self.queue.grant_due(to_wake)
        return ticket

    def held_for(self, now: float) -> float:
        """Return for how many seconds calls were held back, up to now at most."""
        return max(0.0, min(now, max(self.ends, self._last_went)) - self._began)

    def clear(self) -> None:
        """Forget that there was a pause. The waiting calls may go."""
        self.ends = self.spread_end = self._closed_since = self._hinted_at = -FOREVER
        self._closed_spans.clear()
        for ticket in self.queue.waiting:
            self._postpone(ticket, -FOREVER)

    def without_calls(self) -> Pause:
        """Return an equal pause without waiting calls."""
        new = Pause()
        for name in self.__slots__:
            if name != "queue":
                setattr(new, name, getattr(self, name))
        new._closed_spans = self._closed_spans.copy()
        return new

    # The schedule of the queue

    def ready_at(self, ticket: Any) -> float:
        """Return when the first ticket may go; until the end of the pause it does not know yet."""
        now = clock.monotonic()
        if self.closed(now):
            return self.ends
        if ticket.slot is None:
            left = max(0.0, self.spread_end - now)
            share = 1.0 - clock.random.random() ** (1 / len(self.queue.waiting))
            ticket.slot = min(now + left * share, self.spread_end)
        slot: float = ticket.slot
        return slot

    def take(self, ticket: TimedTicket, at: float) -> None:
        """Note when the last one went."""
        del ticket
        self._last_went = at

    def give_back(self, ticket: TimedTicket) -> None:
        """Do nothing: a slot is worth nothing once its time has come."""

    # The last minute

    def closed_share(self, now: float) -> float:
        """Return for which share of the last minute the pause, or an earlier one, has lasted; from 0 to 1."""
        since = now - MINUTE
        closed = max(0.0, min(now, self.ends) - max(since, self._closed_since))
        for began, ended, seconds in self._closed_spans:
            if began <= now and ended > since:
                closed += seconds * (ended - max(since, began)) / (ended - began)
        return min(1.0, closed / MINUTE)

    def _remember_span(self, now: float) -> None:
        """Add the latest pause, which is over, to those of the last minute; of many short ones, make one."""
        began, ended, spans = self._closed_since, min(self.ends, now), self._closed_spans
        seconds = ended - began
        if seconds > 0.0 and ended > -FOREVER:
            if spans and 0.0 <= began - spans[-1][0] < RESOLUTION:
                began, _, before = spans.pop()
                seconds += before
            spans.append((began, ended, seconds))
        while spans and not spans[0][1] > now - MINUTE:
            spans.popleft()
