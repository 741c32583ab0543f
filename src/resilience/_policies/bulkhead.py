"""Bulkhead: at most so many calls at once, so that one slow dependency cannot take everything down with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from resilience._call.call import Call
from resilience._call.wait_queue import Ticket, WaitQueue
from resilience._outcome.ending import Ending
from resilience._policies.blocks import BlockGate
from resilience._util import validation
from resilience._util.clock import clock
from resilience.errors import BulkheadFullError, RejectReason
from resilience.events._types import Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadSettings:
    """What a Bulkhead goes by; see there."""

    limit: int
    queue: int
    max_wait: float

    def __post_init__(self) -> None:
        """Check everything."""
        validation.integer("limit", self.limit, low=1)
        validation.integer("queue", self.queue, low=0)
        object.__setattr__(self, "max_wait", validation.number("max_wait", self.max_wait))


class Bulkhead(BlockGate[Ticket | None]):
    """Let at most `limit` calls in at once; a few more may wait in a queue, first come first served.

    Args:
        limit: how many calls may be inside at once, >= 1. A streamed result counts until it has ended.
        queue: how many more calls may wait for one of those to leave, >= 0.
        max_wait: the longest wait in the queue, in seconds >= 0; 0 means that nobody waits. A call's deadline ends
            its wait earlier.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode a call that would have been refused or had to wait is reported, let
            through at once, and not counted.

    Raises:
        TypeError, ValueError: a parameter of the wrong type or out of range.

    A call that is not let in raises `BulkheadFullError`: reason "full" where the queue has no room, "queue_timeout"
    where it waited in vain. Where its deadline comes first, it raises `DeadlineExceededError`.

    Threads, asyncio tasks and trio tasks may share one bulkhead, and one queue. Who waits is never overtaken by who
    comes later. `update()` works while calls are running: a higher `limit` lets in those who wait at once; under a
    lower one those inside finish, so that for a while more are inside than the limit says, and nobody is let in.
    `queue` and `max_wait` hold for calls that come later.
    """

    kind = "bulkhead"
    holds_permit = True
    settings: BulkheadSettings

    # Permits are made when they are first needed, and lie in `_free` when nobody uses them. So those in use are
    # `_made - len(_free)`, and the most that were ever in use at once are `_made`, the record at no cost.
    #
    # Taking one and putting it back are single steps of the interpreter, and so need no lock. Who waits gets into
    # the line first and looks for a permit then; who leaves puts the permit back first and looks at the line then:
    # one of the two sees the other. Whatever changes `_made` holds the lock of the line. While more are made than the
    # limit allows, `_shrinking` is set, and what comes back is not given out but done away with.

    def __init__(
        self,
        limit: int,
        *,
        queue: int = 0,
        max_wait: float = 1.0,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        super().__init__(BulkheadSettings(limit=limit, queue=queue, max_wait=max_wait), name=name, mode=mode)
        self._free: list[None] = []
        self._made = 0
        self._peak = 0
        self._shrinking = False
        self._line = WaitQueue(self._take, partial(self._free.append, None))
        self._waiting = self._line.waiting

    @property
    def limit(self) -> int:
        """How many calls may be inside at once."""
        return self.settings.limit

    @property
    def in_flight(self) -> int:
        """How many permits are in use; for a while more than `limit`, after that was lowered."""
        with self._line.lock:
            return self._made - len(self._free)

    @property
    def queued(self) -> int:
        """How many calls wait in the queue."""
        return len(self._waiting)

    @property
    def peak(self) -> int:
        """The most permits that were in use at once, since the start or the last `reset`."""
        return max(self._peak, self._made)

    def admit(self, call: Call) -> Ticket | None:
        """Let the call in, or give it a place in the queue.

        Raises:
            BulkheadFullError: all permits are in use, and there is no room in the queue.
        """
        while not self._waiting:
            if not self._shrinking:
                try:
                    # Not `pop()`: Python hears a signal after a call, and a Ctrl-C there would lose the permit. From
                    # here to the driver's `try` there is no call.
                    del self._free[-1]
                except IndexError:
                    pass
                else:
                    return None
            if not self._stock():
                break
        return self._line_up(call)

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        """Put the permit back, however the call ended."""
        self._free.append(None)
        if self._waiting:
            self._line.grant()

    def rejection(self, call: Call) -> BulkheadFullError:
        """Return the error for a call that waited in vain."""
        settings = self.settings
        return self._error(
            call,
            f"all {settings.limit} permits are in use, and the longest wait for one, {settings.max_wait:g} s, is over",
            RejectReason.QUEUE_TIMEOUT,
        )

    def _settings_changed(self) -> None:
        """Let more in after the limit was raised; after it was lowered, do away with what is free."""
        with self._line.lock:
            self._scrap(self.settings.limit)
        self._line.grant()

    def snapshot(self) -> dict[str, Any]:
        """Return `in_flight`, `queued`, `limit` and `peak`, as of one moment."""
        with self._line.lock:
            return {
                "in_flight": self._made - len(self._free),
                "queued": len(self._waiting),
                "limit": self.settings.limit,
                "peak": self.peak,
            }

    def reset(self) -> None:
        """Forget the peak. Permits in use stay in use, and who waits goes on waiting."""
        with self._line.lock:
            self._scrap(0)
            self._peak = 0

    def _stock(self) -> bool:
        """See to it that there is a free permit; False: as many as the limit allows are in use."""
        with self._line.lock:
            limit = self.settings.limit
            if self._shrinking:
                self._scrap(limit)
            if not self._free and self._made < limit:
                self._made += 1
                self._free.append(None)
            return bool(self._free)

    def _take(self) -> bool:
        """Take a permit for the first in line. The lock is held."""
        limit = self.settings.limit
        if self._shrinking:
            self._scrap(limit)
        if self._made > limit:
            return False
        try:
            del self._free[-1]
        except IndexError:
            if self._made == limit:
                return False
            self._made += 1
        return True

    def _scrap(self, keep: int) -> None:
        """Do away with free permits, until `keep` are left or all are in use. The lock is held."""
        self._peak = self.peak
        try:
            while self._made > keep:
                del self._free[-1]
                self._made -= 1
        except IndexError:
            pass
        self._shrinking = self._made > self.settings.limit

    def _line_up(self, call: Call) -> Ticket:
        settings = self.settings
        room = settings.queue if settings.max_wait > 0 else 0
        ticket = self._line.enqueue(clock.monotonic() + settings.max_wait, room)
        if ticket is None:
            waiting = f"the {room} places in its queue are taken" if room else "it has no queue to wait in"
            raise self._error(call, f"all {settings.limit} permits are in use, and {waiting}", RejectReason.FULL)
        return ticket

    def _error(self, call: Call, why: str, reason: RejectReason) -> BulkheadFullError:
        policy, pipeline = call.pipeline.name_of(self) or self.name, call.pipeline.name
        where = f"{policy} of {pipeline}" if pipeline else policy
        return BulkheadFullError(
            f"{where} is full: {why}; the dependency was not called. Make fewer calls at once, or raise limit, queue "
            "or max_wait if the dependency can bear it",
            policy=policy,
            pipeline=pipeline,
            reason=reason,
        )
