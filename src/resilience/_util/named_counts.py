"""Counts by name that are exact under threads."""

from __future__ import annotations

from functools import partial

from resilience._util.finalizers import pending, run_later, run_pending
from resilience._util.locks import is_owned, new_lock


class NamedCounts:
    """Counts occurrences by a name, such as that of a pipeline, for as long as the process runs."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Count one."""
        if is_owned(self._lock):  # a signal handler has interrupted it
            run_later(partial(self.add, name))
            return
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1
        if pending:
            run_pending()

    def totals(self) -> dict[str, int]:
        """Return the counts so far."""
        with self._lock:
            return dict(self._counts)
