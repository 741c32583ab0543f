"""The slack that tests of real time have: machines are slow now and then, and what is asserted is only that a deadline
was kept.
"""

from __future__ import annotations

import threading
import time


def at_most(seconds: float) -> float:
    """Return the longest time that something may have taken which should take `seconds`: 20 %, or 250 ms, more."""
    return seconds + max(0.2 * seconds, 0.25)


class Stalls:
    """Measures for how long the machine, or the interpreter, lets a thread wait that is due: that is nobody's fault.

    Attributes:
        worst: the longest of these times so far, in seconds.
    """

    STEP = 0.01

    def __init__(self) -> None:
        self.worst = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Measure no longer."""
        self._over.set()
        self._thread.join()

    def _measure(self) -> None:
        due = time.monotonic() + self.STEP
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self.worst = max(self.worst, time.monotonic() - due)
            due = time.monotonic() + self.STEP
