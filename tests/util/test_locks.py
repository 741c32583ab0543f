"""The locks of the library: a thread knows whether it holds one, and a forked child can use them."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from resilience._util import locks
from tests.support.fork import in_child
from tests.support.interpreter import run_python
from tests.util.helpers import loaded_again

PATIENCE = 60.0


def held_elsewhere(lock: threading.RLock) -> bool:
    """Return whether another thread than this one holds it."""
    free = lock.acquire(blocking=False)
    if free:
        lock.release()
    return not free


class Held:
    """Another thread holds locks meanwhile."""

    def __init__(self, *held: Any) -> None:
        self.locks = held
        self.is_held, self.may_go = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold)

    def hold(self) -> None:
        for lock in self.locks:
            lock.acquire()
        self.is_held.set()
        self.may_go.wait(PATIENCE)
        for lock in self.locks:
            lock.release()

    def __enter__(self) -> None:
        self.thread.start()
        assert self.is_held.wait(PATIENCE)

    def __exit__(self, *exc_info: object) -> None:
        self.may_go.set()
        self.thread.join(PATIENCE)


def test_a_lock_is_reentrant() -> None:
    lock = locks.new_lock()

    with lock, lock:
        assert locks.holds_any_lock()

    assert not locks.holds_any_lock()


@pytest.mark.parametrize("make", [threading.RLock, locks.UninterruptedLock])
def test_a_thread_knows_that_it_holds_a_lock_that_nothing_else_refers_to(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
) -> None:
    monkeypatch.setattr(locks, "make_lock", make)

    with locks.new_lock():
        gc.collect()
        assert locks.holds_any_lock()

    assert not locks.holds_any_lock()


@pytest.mark.parametrize("make", [locks.new_lock, locks.UninterruptedLock])
def test_it_can_be_entered_by_an_exit_stack(make: Callable[[], Any]) -> None:
    lock = make()

    with contextlib.ExitStack() as stack:
        stack.enter_context(lock)
        assert lock._is_owned()

    assert not lock._is_owned()


@pytest.mark.parametrize("make", [locks.new_lock, locks.UninterruptedLock])
def test_it_is_acquired_and_released_as_another_lock(make: Callable[[], Any]) -> None:
    lock = make()

    with lock:
        assert lock._is_owned()
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert not lock._is_owned()
    assert lock.acquire(blocking=False)
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_lock_of_python_is_used_where_it_does() -> None:
    ordinary = type(locks.new_lock()) is type(threading.RLock())

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
        if lock._is_owned():
            held += 1
            lock.release()
signal.setitimer(signal.ITIMER_REAL, 0)
print("left", held, "times")
"""


def test_no_signal_leaves_a_lock_held() -> None:
    assert run_python(SIGNALLED) == "left 0 times\n"


def test_every_lock_is_a_new_one() -> None:
    assert locks.new_lock() is not locks.new_lock()


def test_a_thread_knows_which_locks_it_holds_itself() -> None:
    lock = locks.new_lock()

    with Held(lock, locks.state_lock):
        assert not locks.holds_any_lock()
        assert not locks.inside_state()
    with locks.state_lock:
        assert locks.holds_any_lock()
        assert locks.inside_state()
    with lock:
        assert locks.holds_any_lock()
        assert not locks.inside_state()


def test_a_lock_that_nobody_uses_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_locks", set())
    kept = locks.new_lock()
    locks.new_lock()
    gc.collect()

    assert [reference() for reference in locks._locks] == [getattr(kept, "inner", kept)]


def test_locks_held_by_a_thread_of_the_parent_are_usable_in_the_child() -> None:
    lock, free = locks.new_lock(), locks.new_lock()
    ordinary = threading.Lock()

    def use() -> str:
        return str([one.acquire(blocking=False) for one in (lock, free, locks.state_lock, ordinary)])

    with Held(lock, locks.state_lock, ordinary):
        said = in_child(use)
        assert held_elsewhere(lock)

    assert said == "[True, True, True, False]"  # False: an ordinary lock would have been stuck


def test_a_lock_held_by_the_thread_that_forks_stays_held_in_the_child() -> None:
    lock = locks.new_lock()

    def use() -> str:
        with ThreadPoolExecutor(1) as other:
            held = other.submit(held_elsewhere, lock).result()
        lock.release()
        return f"{held} {locks.holds_any_lock()}"

    with lock:
        assert in_child(use) == "True False"


def test_where_nothing_forks_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")

    assert not loaded_again("resilience._util.locks").holds_any_lock()


def test_where_processes_fork_the_release_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: dict[str, object] = {}
    monkeypatch.setattr(os, "register_at_fork", registered.update)

    module = loaded_again("resilience._util.locks")

    assert registered == {"after_in_child": module._release_in_child}
