"""A thread that calls a function once a second, for values that nothing asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable

from resilience._util.locks import new_lock
from resilience._util.log_once import hook_failed

INTERVAL = 1.0
"""Seconds between two calls."""


class Refresher:
    """Calls a function in a thread, once a second, and when it is told that something has changed.

    The thread is a daemon, and does not keep the process alive.

    Args:
        refresh: the function.

    Attributes:
        running: whether the thread was started, in this process.
    """

    def __init__(self, refresh: Callable[[], object]) -> None:
        self._refresh = refresh
        self._lock = new_lock()
        self._stopped = False
        self.forget()

    def forget(self) -> None:
        """Take note that the thread does not exist, since the process was forked."""
        self.running = False
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the thread, unless it runs or was stopped."""
        with self._lock:
            if self.running or self._stopped:
                return
            self.running = True
        try:
            threading.Thread(target=self._run, name="resilience-metrics", daemon=True).start()
        except RuntimeError:  # the system cannot start another thread, or the interpreter is shutting down
            self.running = False

    def changed(self) -> None:
        """Have the function called soon."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._refresh()
            except Exception as error:
                hook_failed("refresh of metrics", self._refresh, error)
            self._wake.wait(INTERVAL)
            self._wake.clear()
