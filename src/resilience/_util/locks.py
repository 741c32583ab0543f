"""Locks that a thread can tell it holds, and that are usable in a forked child.

A collection, a signal handler or a callback may run in a thread at any moment, also while the thread holds a lock of
the library. What it then has to settle is deferred until the lock is released; see `_util.finalizers`.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from operator import attrgetter, methodcaller
from typing import Any, TypeVar
from weakref import ReferenceType, ref

T = TypeVar("T")


def _release(lock: UninterruptedLock, *exc_info: object) -> None:
    """Leave a lock as `with` does, for those who call the `__exit__` of its class, such as contextlib.ExitStack."""
    del exc_info
    lock.release()


class _Exit:
    """The `__exit__` of UninterruptedLock: for `with`, the one of the lock inside, which no signal can interrupt.

    Signals are handled when a function in Python begins, so `with` must not call one while it holds the lock.
    """

    def __get__(self, lock: UninterruptedLock | None, owner: object) -> Any:
        exit_: Any = _release if lock is None else lock.inner.__exit__
        return exit_


class UninterruptedLock:
    """A reentrant lock for Python 3.14 that a signal handler which raises in a `with` statement leaves released.

    There, a `with` statement handles signals after a call of `__enter__`, before it is ready to call `__exit__`
    (https://github.com/python/cpython/issues/148874). It does not if `__enter__` is written in Python.
    """

    __slots__ = ("__weakref__", "_at_fork_reinit", "_is_owned", "acquire", "inner", "release")

    def __init__(self) -> None:
        lock: Any = threading.RLock()
        self.inner = lock
        self.acquire = lock.acquire
        self.release = lock.release
        self._is_owned = lock._is_owned
        self._at_fork_reinit = lock._at_fork_reinit

    def __enter__(self) -> None:
        # Signals are handled after a call in Python. This calls `acquire` without one.
        _ = [*map(self.acquire, (True,))]

    __exit__ = _Exit()


_make_lock: Any = UninterruptedLock if sys.version_info[:2] == (3, 14) else threading.RLock
make_lock: Callable[[], threading.RLock] = _make_lock
"""Return a new reentrant lock that no signal leaves locked."""
state_lock = make_lock()
"""Guards the state of all policies of the library.

It is held for a few instructions, never while code of the user is called or another lock is acquired. One lock for
all policies, so that no two locks can block each other's threads, and a thread can ask cheaply whether it holds it.
After a region that it guards, `run_pending` is called if `pending` is not empty.
"""
inside_state: Callable[[], bool] = attrgetter("_is_owned")(state_lock)
"""Return whether this thread holds `state_lock`."""

_locks: set[ReferenceType[Any]] = set()
"""The locks of `new_lock`; a WeakSet would take several times as long to look through."""
_referent: Callable[[ReferenceType[Any]], Any] = methodcaller("__call__")
is_owned: Callable[[Any], bool] = methodcaller("_is_owned")
"""Return whether this thread holds a lock of `make_lock` or `new_lock`."""
_reinitialize: Callable[[Any], object] = methodcaller("_at_fork_reinit")


def new_lock() -> threading.RLock:
    """Return a new reentrant lock, for a policy of your own.

    Streams and coroutines that are garbage-collected while a thread holds it are settled after that. In the child of
    `os.fork()` it is released, since the thread that held it does not exist there. On Python 3.14 it is an object with
    the methods of a `threading.RLock`.
    """
    lock = make_lock()
    # The one inside: a `with` statement keeps that alive, not the lock that it was given.
    _locks.add(ref(getattr(lock, "inner", lock), _locks.discard))
    return lock


class _ThreadState(threading.local):
    """The state of one thread.

    Attributes:
        finalizing: whether a finalizer of the library runs. It may have interrupted any code, so no callback of the
            user may be called.
        settling: whether `run_pending` runs in this thread.
        exporting: held while code of a telemetry library runs in this thread, which may hold locks of its own.
    """

    finalizing = False
    settling = False

    def __init__(self) -> None:
        self.exporting = make_lock()


thread_state = _ThreadState()


def run_in_thread(function: Callable[[], object]) -> None:
    """Run a function in a new thread. For finalizers: `threading.Thread` takes locks, so it is not used."""
    with contextlib.suppress(RuntimeError):  # no thread can be started, or the interpreter is shutting down
        _thread.start_new_thread(function, ())


def holds_any_lock() -> bool:
    """Return whether this thread holds a lock of the library or of a policy."""
    return inside_state() or any(map(is_owned, _living_locks()))


def _living_locks() -> list[Any]:
    return list(filter(None, map(_referent, members(_locks))))


def members(collection: Iterable[T]) -> list[T]:
    """Return the members of a set or mapping, weak or not, that may change while it is iterated over."""
    while True:
        try:
            return list(collection)
        except RuntimeError:  # it changed during the iteration
            continue


def _release_in_child() -> None:
    """Release the locks that other threads of the parent held; those of the forking thread stay held."""
    for lock in (state_lock, *_living_locks()):
        if not is_owned(lock):
            _reinitialize(lock)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
