"""Work that finalizers defer, since they may interrupt any code, also a region that is locked by the same thread.

A finalizer appends a callable without arguments to `pending`. It is run at once if no lock of the library is held;
otherwise by a new thread, or by the next call, drain or end of a wait, whichever comes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from resilience._util.locks import any_locked, run_in_thread, thread_state
from resilience._util.log_once import hook_failed

pending: deque[Callable[[], object]] = deque()
"""The deferred work of garbage-collected streams and coroutines; each call through a pipeline runs it first."""


def settle_from_finalizer(settle: Callable[[], object]) -> None:
    """Run `settle` for a finalizer, at once or as soon as no lock of the library is held.

    Events that it publishes are delivered by the next call: the finalizer may have interrupted a listener that holds a
    lock of its own.
    """
    pending.append(settle)
    settle_pending()


def settle_pending() -> None:
    """Run the deferred work: in this thread, or in a new one if a lock of the library is held."""
    if any_locked():
        run_in_thread(run_pending)
        return
    outer, thread_state.finalizing = thread_state.finalizing, True  # the work may run further finalizers
    try:
        for _ in range(len(pending)):
            _run_next()
    finally:
        thread_state.finalizing = outer


def run_later(function: Callable[[], object]) -> None:
    """Defer a function to the next call through a pipeline."""
    pending.append(function)


def run_pending() -> None:
    """Run the deferred work of finalizers in this thread."""
    while pending:
        _run_next()


def _run_next() -> None:
    try:
        function = pending.popleft()
    except IndexError:  # another thread has run the last one
        return
    try:
        function()
    except Exception as error:
        hook_failed("deferred work of a finalizer", function, error)
