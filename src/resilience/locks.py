"""Locks that a forked child can use, whatever thread of the parent held them at that moment."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")
_locks: WeakSet[threading.Lock] = WeakSet()


def new_lock() -> threading.Lock:
    """Return a lock that `os.fork()` leaves unlocked in the child.

    The threads that held it do not exist there, so nobody would ever release it.
    """
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def any_locked() -> bool:
    """Return whether somebody, perhaps this very thread, is inside a locked region."""
    return any(lock.locked() for lock in members(_locks))


def members(those: Iterable[T]) -> list[T]:
    """List a weak set, or the keys of a weak mapping, that other threads may add to at the same time."""
    while True:
        try:
            return list(those)
        except RuntimeError:  # it changed under our hands
            continue


def _release_in_child() -> None:
    for lock in members(_locks):
        if lock.locked():
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
