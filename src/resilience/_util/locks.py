"""Locks that are usable in a forked child, even if a thread of the parent held them at the time of the fork."""

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
    """Return a new `threading.Lock` that is released in the child after `os.fork()`.

    The thread that held it does not exist in the child, so it would never be released there.
    """
    lock = threading.Lock()
    _locks.add(lock)
    return lock


class _ThreadState(threading.local):
    """The state of one thread.

    Attributes:
        finalizing: whether a finalizer of the library runs. It may have interrupted any code, so no callback of the
            user may be called.
    """

    finalizing = False


thread_state = _ThreadState()


def run_in_thread(function: Callable[[], object]) -> None:
    """Run a function in a new thread. For finalizers: `threading.Thread` takes locks, so it is not used."""
    with contextlib.suppress(RuntimeError):  # no thread can be started, or the interpreter is shutting down
        _thread.start_new_thread(function, ())


def any_locked() -> bool:
    """Return whether any thread, including this one, holds a lock of the library."""
    return any(lock.locked() for lock in members(_locks))


def members(collection: Iterable[T]) -> list[T]:
    """Return the members of a set or mapping, weak or not, that may change while it is iterated over."""
    while True:
        try:
            return list(collection)
        except RuntimeError:  # it changed during the iteration
            continue


def _release_in_child() -> None:
    for lock in members(_locks):
        if lock.locked():
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
