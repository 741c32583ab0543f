"""The locks of the library: ordinary locks that a forked child can use."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest

from resilience._util import locks
from tests.support.fork import in_child
from tests.support.interpreter import run_python
from tests.util.helpers import loaded_again

PATIENCE = 60.0


@pytest.mark.parametrize("make", [locks.new_lock, locks.UninterruptedLock])
def test_a_new_lock_is_an_ordinary_lock(make: Callable[[], Any]) -> None:
    lock = make()

    assert not lock.locked()
    with lock:
        assert lock.locked()
        assert not lock.acquire(blocking=False)
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert lock.acquire(blocking=False)
    lock.release()
    assert not lock.locked()


def test_a_lock_of_python_is_used_where_it_does() -> None:
    ordinary = type(locks.new_lock()) is type(threading.Lock())

    assert ordinary is (sys.version_info[:2] != (3, 14))


SIGNALLED = """
import gc, signal
from resilience import new_lock
from resilience._util.locks import UninterruptedLock

class Signalled(BaseException):
    pass

armed = False
heard = held = 0

def hear(*_):
    global heard
    if armed:
        heard += 1
        raise Signalled

gc.disable()  # an exception in a finaliser is swallowed
signal.signal(signal.SIGALRM, hear)
signal.setitimer(signal.ITIMER_REAL, 2e-5, 2e-5)
for lock in (new_lock(), UninterruptedLock()):
    heard = 0
    while heard < 1000:
        try:
            armed = True
            while True:
                with lock:
                    pass
        except Signalled:
            armed = False
        if lock.locked():
            held += 1
            lock.release()
signal.setitimer(signal.ITIMER_REAL, 0)
print("left", held, "times")
"""


def test_no_signal_leaves_a_lock_held() -> None:
    assert run_python(SIGNALLED) == "left 0 times\n"


def test_every_lock_is_a_new_one() -> None:
    assert locks.new_lock() is not locks.new_lock()


def test_a_lock_that_nobody_uses_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_locks", WeakSet())
    kept = locks.new_lock()
    locks.new_lock()
    gc.collect()

    assert list(locks._locks) == [kept]


def test_in_a_child_held_locks_are_released_and_free_ones_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_locks", WeakSet())
    held, free = locks.new_lock(), locks.new_lock()
    held.acquire()

    locks._release_in_child()

    assert not held.locked()
    assert not free.locked()


def test_a_lock_held_by_a_thread_of_the_parent_is_usable_in_the_child() -> None:
    lock, free = locks.new_lock(), locks.new_lock()
    ordinary = threading.Lock()
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock, ordinary:
            is_held.set()
            may_go.wait(PATIENCE)

    def use() -> str:
        got = [one.acquire(blocking=False) for one in (lock, free, ordinary)]
        lock.release()
        return f"{got} {lock.acquire(blocking=False)}"

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert is_held.wait(PATIENCE)
        said = in_child(use)
        still_held = lock.locked()
    finally:
        may_go.set()
        thread.join(PATIENCE)

    assert said == "[True, True, False] True"  # False: an ordinary lock would have been stuck
    assert still_held
    assert not lock.locked()


def test_where_nothing_forks_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")

    assert not loaded_again("resilience._util.locks").new_lock().locked()


def test_where_processes_fork_the_release_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: dict[str, object] = {}
    monkeypatch.setattr(os, "register_at_fork", registered.update)

    module = loaded_again("resilience._util.locks")

    assert registered == {"after_in_child": module._release_in_child}
