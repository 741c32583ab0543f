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

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task; None if it is gone."""
        return self._task()

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

    __slots__ = ("__weakref__", "_alarm", "_armed", "_cancels", "_ending", "_last", "_ordered", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: ReferenceType[asyncio.AbstractEventLoop] = ref(loop)
        self._cancels: dict[DeadlineCancel, float] = {}
        self._armed = FOREVER
        self._alarm: Callable[[], TimerHandle | None] = _nothing
        self._last = 0.0
        self._ordered = True
        self._ending: dict[DeadlineCancel, tuple[float, float]] = {}  # cancelled: their deadlines, and since when

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
        if self._ending:
            self._ending.pop(cancel, None)
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
        self._armed = FOREVER
        if alarm is not None:
            alarm.cancel()

    def _ring(self) -> None:
        """Cancel what is due: calls with an inherited deadline, and when they have ended, the call that has set it."""
        self._armed = FOREVER
        self._alarm = _nothing
        now = clock.monotonic()
        inherited = timer_of(INHERITED, asyncio.get_running_loop())
        inherited._cancel_due(now, inherited)
        if inherited is not self:
            self._cancel_due(now, inherited)

    def _cancel_due(self, now: float, inherited: DeadlineTimer) -> None:
        """Cancel what is due, the innermost calls first, and arm the timer for the next deadline.

        A call waits until the calls inside of it have ended that have the same deadline, or they would take its
        cancellation for one from outside. It waits for each of them for at most LONGEST_DELAY, since a function may go
        on after a cancellation.
        """
        if not self._ordered:
            self._cancels = dict(sorted(members(self._cancels.items()), key=_when))
            self._ordered = True
            self._last = max(self._cancels.values(), default=0.0)
        entries = members(self._cancels.items())
        due = [entry for entry in reversed(entries) if entry[1] <= now]
        due.sort(key=_when)  # of those with one deadline, the innermost stays the first
        if len(due) < len(entries):
            self._arm_by(entries[len(due)][1])
        for cancel, at in due:
            if inherited._has_inner(cancel, at, now, in_any_task=inherited is not self):
                self._arm_by(now + MOMENT)
            # Cancelling one task may finalize another one, whose entry is removed then.
            elif self._cancels.pop(cancel, None) is not None:
                left = cancel.ambient.holding().at
                if left > now:  # inherited from a call that has ended since
                    if left != FOREVER:
                        self.add(cancel, left)
                    continue
                self._ending.setdefault(cancel, (at, now))
                if not cancel.fire():
                    self.add(cancel, now + LOOKS_AGAIN)

    def _has_inner(self, outer: DeadlineCancel, at: float, now: float, *, in_any_task: bool) -> bool:
        """Return whether a call with the same deadline was cancelled a moment ago, and has not ended.

        Args:
            outer: the call around it.
            at: the deadline.
            now: the present time.
            in_any_task: whether it may be in another task than `outer`, which may wait for it.
        """
        return any(
            one is not outer and due == at and now < since + LONGEST_DELAY and (in_any_task or one.task is outer.task)
            for one, (due, since) in members(self._ending.items())
        )

    def _arm_by(self, at: float) -> None:
        """Arm the timer for that time, unless it is armed for an earlier one."""
        if at < self._armed:
            self._arm(at)


LOOKS_AGAIN = 0.002
"""Seconds after which a cancellation looks again whether its task is still in a shielded scope."""
MOMENT = 0.001
"""Seconds after which a call looks again whether the calls inside of it have ended."""
LONGEST_DELAY = 0.05
"""The most seconds that a call waits for one inside of it to end."""


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
