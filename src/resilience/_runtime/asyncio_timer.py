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

    __slots__ = ("__weakref__", "_alarm", "_armed", "_cancels", "_ending", "_inside", "_last", "_ordered", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: ReferenceType[asyncio.AbstractEventLoop] = ref(loop)
        self._cancels: dict[DeadlineCancel, float] = {}
        self._armed = FOREVER
        self._alarm: Callable[[], TimerHandle | None] = _nothing
        self._last = 0.0
        self._ordered = True
        # What the cancelled attempts that go on are inside of; and how many are inside of each, and since when.
        self._ending: dict[DeadlineCancel, list[Ambient]] = {}
        self._inside: dict[Ambient, tuple[int, float]] = {}

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
            self._note_end(cancel)
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

        A call waits until the calls inside of it that have inherited its deadline have ended: they would take its
        cancellation for one from outside. It waits for at most LONGEST_DELAY after they were cancelled, since a
        function may go on after a cancellation.
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
        for cancel, _ in due:
            _, since = inherited._inside.get(cancel.ambient, (0, -FOREVER))
            if now < since + LONGEST_DELAY:
                self._arm_by(now + MOMENT)
            # Cancelling one task may finalize another one, whose entry is removed then.
            elif self._cancels.pop(cancel, None) is not None:
                left = cancel.ambient.holding().at
                if left > now:  # inherited from a call that has ended since
                    if left != FOREVER:
                        self.add(cancel, left)
                    continue
                if self is inherited and cancel not in self._ending:
                    self._note_begin(cancel, now)
                if not cancel.fire():
                    self.add(cancel, now + LOOKS_AGAIN)

    def _note_begin(self, cancel: DeadlineCancel, now: float) -> None:
        """Note that an attempt is cancelled now, and which calls it is inside of, in whichever task they are."""
        around = self._ending[cancel] = list(cancel.ambient.inherits_from())
        for one in around:
            count, _ = self._inside.get(one, (0, now))
            self._inside[one] = count + 1, now

    def _note_end(self, cancel: DeadlineCancel) -> None:
        """Note that an attempt has ended."""
        for one in self._ending.pop(cancel, ()):
            count, since = self._inside.pop(one)
            if count > 1:
                self._inside[one] = count - 1, since

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
