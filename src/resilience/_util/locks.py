"""Locks that are usable in a forked child, and that no signal leaves locked."""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
_locks: WeakSet[threading.Lock] = WeakSet()


class UninterruptedLock:
    """A lock for Python 3.14 that is released at the end of a `with` statement also if a signal handler raises.

    There, a `with` statement handles signals after a call of `__enter__`, before it is ready to call `__exit__`
    (https://github.com/python/cpython/issues/148874). It does not if `__enter__` is written in Python.
    """

    __slots__ = ("__exit__", "__weakref__", "acquire", "locked", "release")

    def __init__(self) -> None:
        lock = threading.Lock()
        self.acquire = lock.acquire
        self.release = lock.release
        self.locked = lock.locked
        self.__exit__ = lock.__exit__  # signals are handled when a function in Python begins, so this must not be one

    def __enter__(self) -> None:
        # Signals are handled after a call in Python. This calls `acquire` without one.
        _ = [*map(self.acquire, (True,))]


_make_lock: Any = UninterruptedLock if sys.version_info[:2] == (3, 14) else threading.Lock


def new_lock() -> threading.Lock:
    """Return a new `threading.Lock` that is released in the child after `os.fork()`.

    The thread that held it does not exist in the child, so it would never be released there. On Python 3.14 it is an
    object with the methods of one.
    """
    lock: threading.Lock = _make_lock()
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
