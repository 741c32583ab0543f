"""Locks that a forked child can use, whatever thread of the parent held them at that moment."""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
from collections.abc import Callable, Iterable
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


class _Here(threading.local):
    """What is so in one thread."""

    finalising = False


here = _Here()
"""`finalising`: a finaliser of ours is at work, and has interrupted anything: nothing of the user may run now."""


def run_in_thread(function: Callable[[], object]) -> None:
    """Run a function soon, on a thread of its own; for finalisers, so not by way of `threading`, which takes locks."""
    with contextlib.suppress(RuntimeError):  # the system has no thread for it, or the interpreter is about to end
        _thread.start_new_thread(function, ())


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
