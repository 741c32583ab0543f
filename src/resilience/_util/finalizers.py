"""Work that is deferred because it would interrupt a region that this thread has locked.

Finalizers and signal handlers may interrupt any code, also such a region. They append a callable without arguments to
`pending`. It is run at once if this thread holds no lock; otherwise when the thread leaves the region of `state_lock`,
or by a new thread if it holds another lock. The next call, drain or end of a wait runs what is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from resilience._util.locks import holds_any_lock, inside_state, run_in_thread, thread_state
from resilience._util.log_once import hook_failed

pending: deque[Callable[[], object]] = deque()
"""The deferred work; each call through a pipeline, and each region of `state_lock` at its end, runs it."""


def settle_from_finalizer(settle: Callable[[], object]) -> None:
    """Run `settle` for a finalizer, at once or as soon as this thread holds no lock of the library.

    Events that it publishes are delivered by the next call: the finalizer may have interrupted a listener that holds a
    lock of its own.
    """
    pending.append(settle)
    settle_pending()


def settle_pending() -> None:
    """Run the deferred work for a finalizer; do nothing if this thread holds a lock, which defers the work further."""
    if holds_any_lock():
        _run_after_region()
        return
    outer, thread_state.finalizing = thread_state.finalizing, True  # the work may run further finalizers
    try:
        for _ in range(len(pending)):
            _run_next()
    finally:
        thread_state.finalizing = outer


def put_off(function: Callable[[], object]) -> None:
    """Defer a function until this thread has left the region that it has locked."""
    pending.append(function)
    _run_after_region()


def _run_after_region() -> None:
    """Have the deferred work run. At the end of a region of `state_lock` this thread does it; else a new thread."""
    if not inside_state():
        run_in_thread(run_pending)


def run_later(function: Callable[[], object]) -> None:
    """Defer a function to the next call through a pipeline."""
    pending.append(function)


def run_pending() -> None:
    """Run the deferred work, unless this thread does so already, runs a finalizer, or holds `state_lock`."""
    if thread_state.settling or thread_state.finalizing or inside_state():
        return
    if holds_any_lock():
        run_in_thread(run_pending)
        return
    try:
        thread_state.settling = True
        for _ in range(len(pending)):  # not until it is empty: what runs here may defer itself again
            _run_next()
    finally:
        thread_state.settling = False


def _run_next() -> None:
    try:
        function = pending.popleft()
    except IndexError:  # another thread has run the last one
        return
    try:
        function()
    except Exception as error:
        hook_failed("deferred work of a finalizer", function, error)
