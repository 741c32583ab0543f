"""Cuts of work that blocks a thread: something is called at a deadline, on a thread that all of them share."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count
from typing import Final

from resilience._util.clock import FOREVER, clock
from resilience._util.locks import make_lock
from resilience._util.log_once import hook_failed

LINGER: Final = 0.2
"""The seconds for which the thread waits for more to do before it ends."""


class Cut:
    """Something that is called at a deadline, unless it is disarmed before.

    Args:
        action: called on the thread of the timer. It must not block.

    Attributes:
        at: the deadline, in seconds of the monotonic clock; infinity if it is not armed.
        fired: whether `action` was called.
        scheduled: the time at which the timer looks at it; infinity if it does not.
    """

    __slots__ = ("action", "at", "fired", "scheduled")

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.at = FOREVER
        self.fired = False
        self.scheduled = FOREVER

    def arm(self, at: float) -> None:
        """Set the deadline, in place of the one before."""
        self.at = at
        if at < self.scheduled:
            timer.schedule(self, at)

    def disarm(self) -> None:
        """Remove the deadline until the next `arm`. It costs next to nothing: it may be done for each item."""
        self.at = FOREVER

    def close(self) -> None:
        """Remove the deadline for good."""
        self.at = FOREVER
        if self.scheduled != FOREVER:
            timer.forget(self)


class ThreadTimer:
    """The thread that fires cuts. It is started when the first one is armed, and ends when there are none."""

    def __init__(self) -> None:
        self._mutex = make_lock()
        self._due: list[tuple[float, int, Cut]] = []
        self._numbers = count()
        self._scheduled = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def schedule(self, cut: Cut, at: float) -> None:
        """Have the thread look at a cut at that time."""
        with self._mutex:
            self._push(cut, at)
            if self._thread is None or not self._thread.is_alive():  # that of a parent process is not, in a child
                self._wake = threading.Event()
                self._thread = threading.Thread(target=self._run, name="resilience-timer", daemon=True)
                self._thread.start()
            elif self._due[0][2] is cut:
                self._wake.set()

    def forget(self, cut: Cut) -> None:
        """Do not look at a cut any more."""
        with self._mutex:
            if cut.scheduled != FOREVER:
                cut.scheduled = FOREVER
                self._scheduled -= 1
                if self._scheduled == 0:
                    self._due.clear()
                    self._wake.set()

    def _push(self, cut: Cut, at: float) -> None:
        if cut.scheduled == FOREVER:
            self._scheduled += 1
        cut.scheduled = at
        heapq.heappush(self._due, (at, next(self._numbers), cut))

    def _run(self) -> None:
        """Fire what is due until there is nothing more; the function of the thread."""
        while True:
            cut, wait = self._next()
            if cut is not None:
                try:
                    cut.action()
                except Exception as error:
                    hook_failed("action at a deadline", cut.action, error)
            elif self._wake.wait(LINGER if wait is None else wait):
                self._wake.clear()
            elif wait is None:
                with self._mutex:
                    if not self._due:
                        self._thread = None
                        return
            del cut

    def _next(self) -> tuple[Cut | None, float | None]:
        """Return a cut that is to fire; or None, and the seconds until the next one, None if there is none."""
        with self._mutex:
            while self._due:
                at, _, cut = self._due[0]
                now = clock.monotonic()
                if at > now and at == cut.scheduled:
                    return None, at - now
                heapq.heappop(self._due)
                if at != cut.scheduled:
                    continue  # it is to be looked at earlier, or no more
                cut.scheduled = FOREVER
                self._scheduled -= 1
                until = cut.at  # read after `scheduled` was set, which `arm` does in the reverse order
                if until <= now:
                    cut.at = FOREVER
                    cut.fired = True
                    return cut, None
                if until != FOREVER:
                    self._push(cut, until)
            return None, None


timer: Final = ThreadTimer()
"""The timer of all cuts of the process."""
