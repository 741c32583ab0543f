"""The permits of a gate that limits the number of concurrent calls, and the queue for them."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from resilience._call.call import Call
from resilience._call.wait_queue import Ticket, WaitQueue
from resilience._policies.blocks import PermitGate
from resilience._util import validation
from resilience._util.clock import clock
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state
from resilience.errors import BulkheadFullError, RejectReason
from resilience.events._types import ModeName

Token = TypeVar("Token")


class QueueSettings(Protocol):
    """The settings that every gate with permits and a queue has."""

    @property
    def queue(self) -> int:
        """The greatest number of calls that wait for a permit."""
        ...

    @property
    def max_wait(self) -> float:
        """The longest wait in the queue, in seconds."""
        ...


def validate_queue(settings: QueueSettings) -> None:
    """Validate `queue` and `max_wait` of a frozen dataclass; `max_wait` becomes a float."""
    validation.integer("queue", settings.queue, low=0)
    object.__setattr__(settings, "max_wait", validation.number("max_wait", settings.max_wait))


class ConcurrencyGate(PermitGate["Token | Ticket"], Generic[Token]):
    """A gate that admits at most `limit` concurrent calls; more calls may wait in a queue, first come, first served.

    Its token is a `Token` for a call that has not waited, and otherwise the ticket that the call waited with. A
    subclass says what the tokens are, and how the limit changes. Its `settle` releases the permit, and then has it
    granted to the first waiting call.

    Args:
        settings: the settings, among them `queue` and `max_wait`.
        limit: the greatest number of concurrent calls.
        name: see `Policy`.
        mode: see `Policy`.
    """

    holds_permit = True
    settings: Any
    _token: Token
    """The token of the next call that need not wait; set by the `_begin` of a subclass, too."""
    _advice: ClassVar[str]
    """What to do if calls are rejected, for messages."""

    # Permits are made when they are first needed, and are kept in `_free` while not in use. So the number in use is
    # `_made - len(_free)`, and the greatest number ever in use is `_made`, which costs nothing to track.
    #
    # Taking a permit and putting it back are single atomic operations of the interpreter and need no lock. A call that
    # waits enters the queue first and then looks for a permit; a call that ends puts its permit back first and then
    # looks at the queue: so one of the two always sees the other. `_made` and `_limit` are changed with the lock of the
    # queue held.
    # While `_made` exceeds `_limit`, `_shrinking` is set, and permits that come back are discarded, not granted.

    def __init__(self, settings: QueueSettings, limit: int, *, name: str | None, mode: ModeName) -> None:
        super().__init__(settings, name=name, mode=mode)
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        """Make all permits free. A permit of before returns to a list that is not used any more."""
        self._free: list[None] = []
        self._made = 0
        self._peak = 0
        self._shrinking = False
        self._wait_queue = WaitQueue(self._take, partial(self._free.append, None), self.ticket_class)
        self._waiting = self._wait_queue.waiting

    def _forget_calls(self) -> None:
        super()._forget_calls()
        self._begin()

    @property
    def limit(self) -> int:
        """The greatest number of concurrent calls."""
        return self._limit

    def _wanted_limit(self) -> int:
        """Return what the limit is to be after the settings were changed. Lock held."""
        return self._limit

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

    def admit(self, call: Call) -> Token | Ticket:
        """Take a permit, or return a ticket of the queue to wait on.

        Raises:
            BulkheadFullError: all permits are in use, and there is no room in the queue.
        """
        while not self._waiting:
            if not self._shrinking:
                free = self._free
                token = self._token
                try:
                    # Not `pop()`: Python handles signals after a call, and a Ctrl-C there would lose the permit. From
                    # here to the driver's `try` there is no call.
                    del free[-1]
                except IndexError:
                    pass
                else:
                    return token
            if not self._ensure_free():
                break
        return self._enqueue(call)

    def rejection(self, call: Call) -> BulkheadFullError:
        """Return the error for a call that got no permit within `max_wait`."""
        settings = self.settings
        return self._error(
            call,
            f"all {self._limit} permits are in use, and the longest wait for one, {settings.max_wait:g} s, is over",
            RejectReason.QUEUE_TIMEOUT,
        )

    def _settings_changed(self) -> None:
        """Admit waiting calls after the limit was raised; discard free permits after it was lowered."""
        if inside_state():
            put_off(self._settings_changed)
            return
        with self._wait_queue.lock:
            self._change_limit(self._wanted_limit())
        if pending:
            run_pending()
        self._wait_queue.grant()

    def _change_limit(self, limit: int) -> None:
        """Change the limit; discard free permits if it was lowered. Lock held."""
        self._limit = limit
        self._discard_free(limit)

    def snapshot(self) -> dict[str, Any]:
        """Return `in_flight`, `queued`, `limit` and `peak`, all of the same moment."""
        with self._wait_queue.lock:
            state = {
                "in_flight": self._made - len(self._free),
                "queued": len(self._waiting),
                "limit": self._limit,
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
            limit = self._limit
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
        limit = self._limit
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
        self._shrinking = self._made > self._limit

    def _enqueue(self, call: Call) -> Ticket:
        """Return a ticket of the queue, or raise the rejection of a call for which there is no room."""
        settings = self.settings
        room = settings.queue if settings.max_wait > 0 else 0
        ticket = self._wait_queue.enqueue(clock.monotonic() + settings.max_wait, room)
        if ticket is None:
            waiting = f"the {room} places in its queue are taken" if room else "it has no queue to wait in"
            raise self._error(call, f"all {self._limit} permits are in use, and {waiting}", RejectReason.FULL)
        return ticket

    def _error(self, call: Call, why: str, reason: RejectReason) -> BulkheadFullError:
        """Return the rejection of a call."""
        info = call.pipeline
        return BulkheadFullError(
            f"{info.label(self, self.name)} is full: {why}; the dependency was not called. Make fewer calls at once, "
            f"or {self._advice}",
            policy=info.name_of(self) or self.name,
            pipeline=info.name,
            reason=reason,
        )
