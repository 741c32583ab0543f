"""The cancellation of asyncio tasks at their deadlines: one timer for many attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from resilience._call.ambient import Ambient
from resilience._call.running_call import INHERITED, DeadlineSource
from resilience._runtime.anyio_shields import in_shield, innermost_scope
from resilience._util.clock import FOREVER, TimerHandle, clock
from resilience._util.locks import members


class DeadlineCancel:
    """The cancellation of one attempt at its deadline.

    Args:
        task: the task that makes the attempt.
        ambient: what the attempt has set for the code inside of it.

    Attributes:
        before: the pending cancellations of the task before the attempt.
        fired: whether `fire` has cancelled the task.
    """

    __slots__ = ("_task", "ambient", "before", "fired")

    def __init__(self, task: asyncio.Task[Any], ambient: Ambient) -> None:
        self.ambient = ambient
        self._task = ref(task)  # weak: the timer must not keep alive a task of an abandoned loop
        self.before = task.cancelling()
        self.fired = False

    def fire(self) -> bool:
        """Cancel the task; return False if it is to be tried again later.

        The message of a cancellation from outside is kept: anyio recognizes its own by it.
        """
        task = self._task()
        if task is not None:
            self.fired = True
            other = task.cancelling() > self.before
            task.cancel(getattr(task, "_cancel_message", None) if other else None)
        return True

    def caused(self, error: BaseException | None) -> bool:
        """Uncancel the task; return whether `error` was caused by this cancellation, not by one from outside."""
        task = self._task()
        left = 0 if task is None else task.uncancel()
        possible = isinstance(error, asyncio.CancelledError | Exception | BaseExceptionGroup)
        return possible and left <= self.before


class PatientCancel(DeadlineCancel):
    """The cancellation of an attempt of a client that cleans up in shielded scopes of anyio: it waits until these end.

    A `Task.cancel` that interrupts the clean-up of httpcore costs its pool a connection.
    """

    __slots__ = ("_around",)

    def __init__(self, task: asyncio.Task[Any], ambient: Ambient) -> None:
        super().__init__(task, ambient)
        self._around = innermost_scope(task)

    def fire(self) -> bool:
        """Cancel the task; return False while it is in a shielded scope that it has entered since."""
        task = self._task()
        return (task is None or not in_shield(task, self._around)) and super().fire()


class DeadlineTimer:
    """The single timer of a loop for all attempts whose deadlines have the same source.

    Deadlines mostly come in the order in which attempts start, so the first entry is usually the next to be cancelled;
    otherwise the entries are sorted when the timer fires. The timer is armed lazily: an attempt that ends before its
    deadline, as most do, costs only an entry in a dict.
    """

    __slots__ = ("__weakref__", "_alarm", "_armed", "_cancels", "_last", "_ordered", "_waits_until", "ending", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: ReferenceType[asyncio.AbstractEventLoop] = ref(loop)
        self._cancels: dict[DeadlineCancel, float] = {}
        self._armed = FOREVER
        self._alarm: Callable[[], TimerHandle | None] = _nothing
        self._last = 0.0
        self._ordered = True
        self._waits_until = FOREVER
        self.ending: set[DeadlineCancel] = set()  # due, and their attempts have not ended yet

    def add(self, cancel: DeadlineCancel, at: float) -> None:
        """Cancel an attempt at that time."""
        if at < self._last and self._cancels:
            self._ordered = False
        self._last = at
        self._cancels[cancel] = at
        if at < self._armed:
            self._arm(at)

    def discard(self, cancel: DeadlineCancel) -> None:
        """Remove an attempt that has ended. Virtual time must not advance to a deadline without an attempt."""
        self._cancels.pop(cancel, None)
        if self.ending:
            self.ending.discard(cancel)
        if not self._cancels and not clock.real:
            self._disarm()

    def _arm(self, at: float) -> None:
        self._disarm()
        self._armed = at
        alarm = clock.alarm(at, self._ring)
        if alarm is None:
            left = max(0.0, at - clock.monotonic())
            alarm = asyncio.get_running_loop().call_later(left, self._ring)
        self._alarm = _weakly(alarm)

    def _disarm(self) -> None:
        alarm = self._alarm()
        self._alarm = _nothing
        self._armed = self._waits_until = FOREVER
        if alarm is not None:
            alarm.cancel()

    def _ring(self) -> None:
        """Cancel what is due: first inner calls with an inherited deadline; when they have ended, those around them.

        Without the delay, an inner call would take the cancellation of the outer one for one from outside. It is at
        most LONGEST_DELAY, since the function of an inner call may go on all the same.
        """
        self._armed = FOREVER
        self._alarm = _nothing
        now = clock.monotonic()
        inner = timer_of(INHERITED, asyncio.get_running_loop())
        inner.cancel_due(now)
        if inner is self:
            return
        if inner.ending and now < self._waits_until:
            until = min(self._waits_until, now + LONGEST_DELAY)
            self._arm(now + MOMENT)
            self._waits_until = until
            return
        self._waits_until = FOREVER
        self.cancel_due(now)

    def cancel_due(self, now: float) -> None:
        """Cancel what is due, and arm the timer for the next deadline."""
        if not self._ordered:
            self._cancels = dict(sorted(members(self._cancels.items()), key=_when))
            self._ordered = True
            self._last = max(self._cancels.values(), default=0.0)
        for cancel, at in members(self._cancels.items()):
            if at > now:
                self._arm(at)
                break
            # Cancelling one task may finalize another one, whose entry is removed then.
            if self._cancels.pop(cancel, None) is not None:
                left = cancel.ambient.holding().at
                if left > now:  # inherited from a call that has ended since
                    if left != FOREVER:
                        self.add(cancel, left)
                    continue
                self.ending.add(cancel)
                if not cancel.fire():
                    self.add(cancel, now + LOOKS_AGAIN)


LOOKS_AGAIN = 0.002
"""Seconds after which a cancellation looks again whether its task is still in a shielded scope."""
MOMENT = 0.001
"""Seconds after which an outer call looks again whether inner calls have ended."""
LONGEST_DELAY = 0.05
"""The most seconds that an outer call waits for inner calls to end."""


def _nothing() -> None:
    return None


def _weakly(alarm: TimerHandle) -> Callable[[], TimerHandle | None]:
    """Return a weak reference to a timer, so that its loop is not kept alive; a strong one if it supports no other."""
    try:
        return ref(alarm)
    except TypeError:
        return lambda: alarm


def _when(item: tuple[DeadlineCancel, float]) -> float:
    return item[1]


_timers: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakKeyDictionary[DeadlineSource, DeadlineTimer]] = (
    WeakKeyDictionary()
)


def timer_of(source: DeadlineSource, loop: asyncio.AbstractEventLoop) -> DeadlineTimer:
    """Return the timer of the running loop for deadlines from this source; it is made when it is first needed."""
    known: ReferenceType[DeadlineTimer] | None = source.timer
    timer = None if known is None else known()
    if timer is None or timer.loop() is not loop:
        timer = _timers.setdefault(loop, WeakKeyDictionary()).setdefault(source, DeadlineTimer(loop))
        source.timer = ref(timer)
    return timer
