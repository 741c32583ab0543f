"""Waiting in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from resilience.call import Waiter
from resilience.clock import FOREVER, ambient


def park(waiter: Waiter, until: float) -> None:
    """Wait in a queue until woken, or until that time."""
    _wait(ambient.park, waiter, until)


def sleep(waiter: Waiter, until: float) -> None:
    """Sleep between two attempts until that time, or until woken."""
    _wait(ambient.sleep, waiter, until)


def _wait(wait: Callable[[threading.Lock, float], bool], waiter: Waiter, until: float) -> None:
    lock = threading.Lock()
    lock.acquire()
    if waiter.park(lock.release):
        wait(lock, FOREVER if until == FOREVER else until - ambient.monotonic())
