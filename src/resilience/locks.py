"""Locks that a forked child can use, whatever thread of the parent held them at that moment."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

_locks: WeakSet[threading.Lock] = WeakSet()


def new_lock() -> threading.Lock:
    """Return a lock that `os.fork()` leaves unlocked in the child.

    The threads that held it do not exist there, so nobody would ever release it.
    """
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def any_locked() -> bool:
    """Return whether somebody, perhaps this very thread, may be inside a locked region."""
    try:
        return any(lock.locked() for lock in list(_locks))
    except RuntimeError:  # another thread is making a lock at this moment
        return True


def _release_in_child() -> None:
    for lock in list(_locks):
        if lock.locked():
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
