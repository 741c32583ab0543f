"""AdaptiveLimit: limit the number of concurrent calls to what the dependency can take, which is found out by trying.

The rule is that of TCP's congestion control (Chiu and Jain 1989, RFC 5681): additive increase, multiplicative decrease.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import OK, Ending, EndingKind
from resilience._outcome.failure import FailureKind
from resilience._policies.permits import ConcurrencyGate, validate_queue
from resilience._util import validation
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state
from resilience._util.values import Value
from resilience.events._types import Mode, ModeName

# Looking up a member of an enumeration takes 50 ns each time in Python 3.11.
_OK: Final = EndingKind.OK
_OVERLOAD, _TIMEOUT = FailureKind.OVERLOAD, FailureKind.TIMEOUT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdaptiveLimitSettings(Value):
    """The settings of an AdaptiveLimit; `AdaptiveLimit` describes each."""

    initial: int
    min_limit: int
    max_limit: int
    backoff_ratio: float
    queue: int
    max_wait: float

    def __post_init__(self) -> None:
        """Validate the settings."""
        validation.integer("min_limit", self.min_limit, low=1)
        validation.integer("max_limit", self.max_limit, low=self.min_limit)
        validation.integer("initial", self.initial, low=self.min_limit, high=self.max_limit)
        validation.number("backoff_ratio", self.backoff_ratio, above=True, high=1.0)
        validate_queue(self)

    def lowered(self, limit: int) -> int:
        """Return the limit after a drop."""
        return max(self.min_limit, int(limit * self.backoff_ratio))


class Window:
    """The calls between two decreases: the token of those that have not waited.

    Attributes:
        free: the list that their permits return to.
        good: counts a good ending, and returns how many there were since the limit was last changed.
        goal: how many of them raise the limit.
        busy: how many permits others have to use for the good ending of a call to count.
    """

    __slots__ = ("busy", "free", "goal", "good")

    def __init__(self, free: list[None], limit: int, max_limit: int) -> None:
        self.free = free
        self.expect(limit, max_limit)

    def expect(self, limit: int, max_limit: int) -> None:
        """Count good endings anew, for a limit. Lock held."""
        self.busy = (limit - 1) // 2 if limit < max_limit else sys.maxsize
        self.goal = limit
        self.good: Callable[[], int] = itertools.count(1).__next__


class WindowTicket(Ticket):
    """A ticket that knows the window in which its permit was granted."""

    __slots__ = ("window",)

    window: Window


class AdaptiveLimit(ConcurrencyGate[Window]):
    """Admit as many concurrent calls as the dependency can take; more calls may wait in a queue.

    Args:
        initial: the limit at the start, from `min_limit` to `max_limit`.
        min_limit: the smallest limit, >= 1.
        max_limit: the greatest limit, >= `min_limit`.
        backoff_ratio: the factor on the limit after a drop, in (0, 1]; the result is rounded down.
        queue: the greatest number of calls that wait for a permit, >= 0; 0 for no queue.
        max_wait: the longest wait in the queue, in seconds, >= 0; with 0 no call waits. A call's deadline ends its wait
            earlier.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a call that would have been rejected or had to wait is reported, admitted
            at once, and neither counted in `in_flight` nor learned from.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    A drop lowers the limit: a failure of the kind OVERLOAD, also one that is not `counted`, such as HTTP 429; or a
    counted one of the kind TIMEOUT, such as a call that a Timeout of the pipeline has ended. Other failures, other
    exceptions, cancellation, and a call that was ended early by a short deadline of its caller change nothing. As in
    TCP, drops of calls that were admitted before the last decrease do not lower the limit again: they are of the same
    congestion. Good endings of calls admitted since then raise it: by 1 for as many as the limit is, of those that end
    while at least half of the permits are in use.

    A call that is not admitted raises `BulkheadFullError`, as with `Bulkhead`, which it is otherwise alike: threads,
    asyncio tasks and trio tasks may share it, and a waiting call is never overtaken. `update()` works while calls are
    running; `initial` then applies to the next `reset()`.
    """

    kind = "adaptive_limit"
    ticket_class = WindowTicket
    settings: AdaptiveLimitSettings
    _advice = "raise queue or max_wait; the limit follows the timeouts and overloads of the dependency"

    # Each decrease begins a new window, and calls of an earlier one have no effect. So the clock is not read, and a
    # success needs no lock: it compares its window, and counts itself. The counter is replaced whenever the limit
    # changes, so that of several calls that reach the goal one has an effect.

    def __init__(
        self,
        initial: int = 20,
        *,
        min_limit: int = 1,
        max_limit: int = 200,
        backoff_ratio: float = 0.9,
        queue: int = 0,
        max_wait: float = 1.0,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = AdaptiveLimitSettings(
            initial=initial,
            min_limit=min_limit,
            max_limit=max_limit,
            backoff_ratio=backoff_ratio,
            queue=queue,
            max_wait=max_wait,
        )
        super().__init__(settings, initial, name=name, mode=mode)

    @property
    def limit(self) -> int:
        """The greatest number of concurrent calls now."""
        return self._limit

    def _begin(self) -> None:
        super()._begin()
        self._token = self._new_window()

    def _new_window(self) -> Window:
        return Window(self._free, self._limit, self.settings.max_limit)

    def settle(self, token: Window | Ticket, ending: Ending) -> None:
        """Release the permit, learn from the ending, and grant the permit to the first waiting call.

        A success takes no lock, except for the one that raises the limit.
        """
        if token.__class__ is Window:
            window: Any = token
            window.free.append(None)
        else:
            ticket: Any = token
            window = ticket.window
            ticket.release()
        try:
            if (
                (ending is OK or self._is_good(window, ending))
                and window is self._token
                and self._made - len(window.free) >= window.busy
            ):
                good = window.good
                if good() >= window.goal:
                    self._raise(window, good)
        finally:
            if self._waiting:
                self._wait_queue.grant()

    def _is_good(self, window: Window, ending: Ending) -> bool:
        """Return whether an ending is good; lower the limit if it is a drop. It may call a predicate of the user.

        If a finalizer or a signal handler has interrupted a change of the state, it is put off, and a good ending is
        not counted.
        """
        if inside_state():
            put_off(partial(self._is_good, window, ending))
            return False
        if ending.kind is _OK:
            return True
        failure = ending.failure
        if failure is not None and (failure.kind is _OVERLOAD or (failure.kind is _TIMEOUT and failure.counted)):
            self._lower(window)
        return False

    def _raise(self, window: Window, good: Callable[[], int]) -> None:
        """Raise the limit by 1, unless it was changed since the goal was reached."""
        if inside_state():
            put_off(partial(self._raise, window, good))
            return
        with self._wait_queue.lock:
            if window is self._token and good is window.good and self._limit < self.settings.max_limit:
                self._change_limit(self._limit + 1)
        if pending:
            run_pending()

    def _lower(self, window: Window) -> None:
        """Lower the limit after a drop, unless it was lowered since the call was admitted."""
        with self._wait_queue.lock:
            if window is self._token:
                self._token = self._new_window()
                self._change_limit(self.settings.lowered(self._limit))
        if pending:
            run_pending()

    def _change_limit(self, limit: int) -> None:
        super()._change_limit(limit)
        self._token.expect(limit, self.settings.max_limit)

    def _wanted_limit(self) -> int:
        settings = self.settings
        return min(max(self._limit, settings.min_limit), settings.max_limit)

    def _take(self) -> bool:
        """Take a permit for the first waiting call, whose ticket learns in which window. Lock held."""
        ticket: Any = next(iter(self._waiting))
        ticket.window = self._token
        return super()._take()

    def reset(self) -> None:
        """Set the limit to `initial`, and reset `peak`. Permits in use stay in use, and waiting calls keep waiting."""
        if inside_state():
            put_off(self.reset)
            return
        with self._wait_queue.lock:
            self._token = self._new_window()
            self._change_limit(self.settings.initial)
        super().reset()
        self._wait_queue.grant()
