"""What finalizers leave to be done: they may interrupt anything, also a region that their own thread has locked.

A finalizer appends a callable without arguments to `pending`. It is run at once where no lock of the library is held,
and else by a thread of its own, or by the next call, drain or end of a wait, whichever comes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from resilience._util.locks import any_locked, here, run_in_thread
from resilience._util.log_once import hook_failed

pending: deque[Callable[[], object]] = deque()
"""What dropped streams and coroutines have left to do; every entry into a pipeline runs it."""


def settle_from_finalizer(settle: Callable[[], object]) -> None:
    """Settle something, for a finalizer: it may run inside a locked region of this very thread.

    Events that this publishes are delivered by the next call: a listener may have been interrupted while it held a
    lock of its own.
    """
    pending.append(settle)
    settle_pending()


def settle_pending() -> None:
    """Run what is pending, if that can be done here and now; see `settle_from_finalizer`."""
    if any_locked():
        run_in_thread(run_pending)
        return
    outer, here.finalising = here.finalising, True  # what is settled may drop more
    try:
        for _ in range(len(pending)):
            _run_next()
    finally:
        here.finalising = outer


def run_later(function: Callable[[], object]) -> None:
    """Have the next call run a function."""
    pending.append(function)


def run_pending() -> None:
    """Run what finalizers have left."""
    while pending:
        _run_next()


def _run_next() -> None:
    try:
        function = pending.popleft()
    except IndexError:  # another thread was faster
        return
    try:
        function()
    except Exception as error:
        hook_failed("what a finalizer has left", function, error)
