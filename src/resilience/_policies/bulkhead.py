"""Bulkhead: limit the number of concurrent calls, so that one slow dependency cannot exhaust the whole process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from resilience._call.call import Call
from resilience._call.wait_queue import Ticket, WaitQueue
from resilience._outcome.ending import Ending
from resilience._policies.blocks import PermitGate
from resilience._util import validation
from resilience._util.clock import clock
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state
from resilience._util.values import Value
from resilience.errors import BulkheadFullError, RejectReason
from resilience.events._types import Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BulkheadSettings(Value):
    """The settings of a Bulkhead; `Bulkhead` describes each."""

    limit: int
    queue: int
    max_wait: float

    def __post_init__(self) -> None:
        """Validate the settings; `max_wait` becomes a float."""
        validation.integer("limit", self.limit, low=1)
        validation.integer("queue", self.queue, low=0)
        object.__setattr__(self, "max_wait", validation.number("max_wait", self.max_wait))


Permit: TypeAlias = "list[None] | Ticket"
"""The token of an admitted call: the list that its permit returns to, or the ticket that it waited with."""


class Bulkhead(PermitGate[Permit]):
    """Admit at most `limit` concurrent calls; more calls may wait in a queue, first come, first served.

    Args:
        limit: the greatest number of concurrent calls, >= 1. A streamed result counts until it has ended.
        queue: the greatest number of calls that wait for a permit, >= 0; 0 for no queue.
        max_wait: the longest wait in the queue, in seconds, >= 0; with 0 no call waits. A call's deadline ends its wait
            earlier.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a call that would have been rejected or had to wait is reported, admitted
            at once, and not counted in `in_flight`.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    A call that is not admitted raises `BulkheadFullError`, with the reason "full" if the queue has no room for it, and
    "queue_timeout" if no permit was free within `max_wait`. If the call's deadline passes in the queue, it raises
    `DeadlineExceededError`. In all three cases the dependency was not called.

    Threads, asyncio tasks and trio tasks may share one bulkhead and its queue. A waiting call is never overtaken by a
    later one. `update()` works while calls are running. A higher `limit` admits waiting calls at once. Under a lower
    `limit` the admitted calls finish, and none is admitted until fewer than `limit` are running. A change of `queue`
    or `max_wait` applies to later calls.
    """

    kind = "bulkhead"
    holds_permit = True
    settings: BulkheadSettings

    # Permits are made when they are first needed, and are kept in `_free` while not in use. So the number in use is
    # `_made - len(_free)`, and the greatest number ever in use is `_made`, which costs nothing to track.
    #
    # Taking a permit and putting it back are single atomic operations of the interpreter and need no lock. A call that
    # waits enters the queue first and then looks for a permit; a call that ends puts its permit back first and then
    # looks at the queue: so one of the two always sees the other. `_made` is changed with the lock of the queue held.
    # While `_made` exceeds the limit, `_shrinking` is set, and permits that come back are discarded, not granted.

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
        self._begin()

    def _begin(self) -> None:
        """Make all permits free. A permit of before returns to a list that is not used any more."""
        self._free: list[None] = []
        self._made = 0
        self._peak = 0
        self._shrinking = False
        self._wait_queue = WaitQueue(self._take, partial(self._free.append, None))
        self._waiting = self._wait_queue.waiting

    def _forget_calls(self) -> None:
        super()._forget_calls()
        self._begin()

    @property
    def limit(self) -> int:
        """The greatest number of concurrent calls."""
        return self.settings.limit

    @property
    def in_flight(self) -> int:
        """The number of permits in use. It may exceed `limit` for a while after `limit` was lowered."""
        with self._wait_queue.lock:
            in_use = self._made - len(self._free)
        if pending:
            run_pending()
        return in_use

    @property
    def queued(self) -> int:
        """The number of calls that wait in the queue."""
        return len(self._waiting)

    @property
    def peak(self) -> int:
        """The greatest number of permits in use at once, since the start or the last `reset`."""
        return max(self._peak, self._made)

    def admit(self, call: Call) -> Permit:
        """Take a permit, or return a ticket of the queue to wait on.

        Raises:
            BulkheadFullError: all permits are in use, and there is no room in the queue.
        """
        while not self._waiting:
            if not self._shrinking:
                free = self._free
                try:
                    # Not `pop()`: Python handles signals after a call, and a Ctrl-C there would lose the permit. From
                    # here to the driver's `try` there is no call.
                    del free[-1]
                except IndexError:
                    pass
                else:
                    return free
            if not self._ensure_free():
                break
        return self._enqueue(call)

    def settle(self, token: Permit, ending: Ending) -> None:
        """Release the permit, whatever the ending, and grant it to the first waiting call."""
        if isinstance(token, Ticket):
            token.release()
        else:
            token.append(None)
        if self._waiting:
            self._wait_queue.grant()

    def rejection(self, call: Call) -> BulkheadFullError:
        """Return the error for a call that got no permit within `max_wait`."""
        settings = self.settings
        return self._error(
            call,
            f"all {settings.limit} permits are in use, and the longest wait for one, {settings.max_wait:g} s, is over",
            RejectReason.QUEUE_TIMEOUT,
        )

    def _settings_changed(self) -> None:
        """Admit waiting calls after the limit was raised; discard free permits after it was lowered."""
        if inside_state():
            put_off(self._settings_changed)
            return
        with self._wait_queue.lock:
            self._discard_free(self.settings.limit)
        if pending:
            run_pending()
        self._wait_queue.grant()

    def snapshot(self) -> dict[str, Any]:
        """Return `in_flight`, `queued`, `limit` and `peak`, all of the same moment."""
        with self._wait_queue.lock:
            state = {
                "in_flight": self._made - len(self._free),
                "queued": len(self._waiting),
                "limit": self.settings.limit,
                "peak": self.peak,
            }
        if pending:
            run_pending()
        return state

    def reset(self) -> None:
        """Reset `peak`. Permits in use stay in use, and waiting calls keep waiting."""
        if inside_state():
            put_off(self.reset)
            return
        with self._wait_queue.lock:
            self._discard_free(0)
            self._peak = 0
        if pending:
            run_pending()

    def _ensure_free(self) -> bool:
        """Make a free permit if the limit allows; return whether there is a free permit.

        None is made for a finalizer or a signal handler that has interrupted a change of the state.
        """
        if inside_state():
            return False
        with self._wait_queue.lock:
            limit = self.settings.limit
            if self._shrinking:
                self._discard_free(limit)
            if not self._free and self._made < limit:
                self._made += 1
                self._free.append(None)
            found = bool(self._free)
        if pending:
            run_pending()
        return found

    def _take(self) -> bool:
        """Take a permit for the first waiting call; return whether there was one. Lock held."""
        limit = self.settings.limit
        if self._shrinking:
            self._discard_free(limit)
        if self._made > limit:
            return False
        try:
            del self._free[-1]
        except IndexError:
            if self._made == limit:
                return False
            self._made += 1
        return True

    def _discard_free(self, keep: int) -> None:
        """Discard free permits, until `keep` permits are left or all are in use. Lock held."""
        self._peak = self.peak
        try:
            while self._made > keep:
                del self._free[-1]
                self._made -= 1
        except IndexError:
            pass
        self._shrinking = self._made > self.settings.limit

    def _enqueue(self, call: Call) -> Ticket:
        """Return a ticket of the queue, or raise the rejection of a call for which there is no room."""
        settings = self.settings
        room = settings.queue if settings.max_wait > 0 else 0
        ticket = self._wait_queue.enqueue(clock.monotonic() + settings.max_wait, room)
        if ticket is None:
            waiting = f"the {room} places in its queue are taken" if room else "it has no queue to wait in"
            raise self._error(call, f"all {settings.limit} permits are in use, and {waiting}", RejectReason.FULL)
        return ticket

    def _error(self, call: Call, why: str, reason: RejectReason) -> BulkheadFullError:
        """Return the rejection of a call."""
        info = call.pipeline
        return BulkheadFullError(
            f"{info.label(self, self.name)} is full: {why}; the dependency was not called. Make fewer calls at once, "
            "or raise limit, queue or max_wait if the dependency can take more calls",
            policy=info.name_of(self) or self.name,
            pipeline=info.name,
            reason=reason,
        )
