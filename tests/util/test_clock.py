"""The clock of the process: time and chance come from one replaceable source, and children are seeded anew."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

import pytest

from resilience._util.clock import FOREVER, Clock, ProcessClock, SystemClock, _reseed_in_child, clock
from tests.support.fork import in_child
from tests.util.helpers import loaded_again

PATIENCE = 60.0


class StoppedTime:
    """Time that stands still and writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def monotonic(self) -> float:
        return 42.0

    def sleep(self, lock: threading.Lock, seconds: float) -> bool:
        self.asked.append(("sleep", seconds))
        return lock.locked()

    def park(self, lock: threading.Lock, seconds: float) -> bool:
        self.asked.append(("park", seconds))
        return lock.locked()

    def sleeping(self, seconds: float) -> None:
        self.asked.append(("sleeping", seconds))

    def alarm(self, at: float, callback: Callable[[], object]) -> None:
        self.asked.append(("alarm", at))
        callback()

    def on_thread(self, function: Callable[[], object], done: threading.Lock | None = None) -> Callable[[], object]:
        return function


@pytest.fixture(params=["sleep", "park"])
def wait(request: pytest.FixtureRequest) -> Callable[[threading.Lock, float], bool]:
    source = SystemClock()
    return {"sleep": source.sleep, "park": source.park}[request.param]


def held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def test_the_system_time_is_the_monotonic_clock() -> None:
    before = time.monotonic()
    now = SystemClock().monotonic()

    assert before <= now <= time.monotonic()


@pytest.mark.parametrize("seconds", [0.0, -1.0, -FOREVER, 1e-9])
def test_a_wait_that_nobody_ends_is_over_in_time(wait: Callable[[threading.Lock, float], bool], seconds: float) -> None:
    lock = held()

    assert wait(lock, seconds) is False
    assert lock.locked()


@pytest.mark.parametrize("seconds", [0.0, -1.0, 5.0, threading.TIMEOUT_MAX * 2, 1e300, FOREVER])
def test_a_wait_that_was_ended_before_is_over_at_once(
    wait: Callable[[threading.Lock, float], bool], seconds: float
) -> None:
    assert wait(threading.Lock(), seconds) is True


@pytest.mark.parametrize("seconds", [PATIENCE, 1e300, FOREVER])
def test_a_release_ends_a_wait(wait: Callable[[threading.Lock, float], bool], seconds: float) -> None:
    lock = held()
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(wait(lock, seconds)), daemon=True)
    thread.start()

    lock.release()
    thread.join(PATIENCE)

    assert results == [True]


def test_the_system_time_leaves_alarms_to_the_loop() -> None:
    called: list[int] = []

    assert SystemClock().alarm(0.0, lambda: called.append(1)) is None
    assert called == []


def test_a_new_ambient_has_the_system_time() -> None:
    own = ProcessClock()

    assert isinstance(own.time, SystemClock)
    assert own.monotonic is time.monotonic
    assert type(own.random) is random.Random


def test_everything_comes_from_the_source_in_use() -> None:
    own = ProcessClock()
    source: Clock = StoppedTime()
    lock = threading.Lock()
    called: list[int] = []

    own.use(source)

    assert own.time is source
    assert own.monotonic() == 42.0
    assert own.sleep(lock, 1.0) is False
    assert own.park(held(), 2.0) is True
    assert own.alarm(3.0, lambda: called.append(1)) is None
    assert isinstance(source, StoppedTime)
    assert source.asked == [("sleep", 1.0), ("park", 2.0), ("alarm", 3.0)]
    assert called == [1]


def test_another_source_replaces_all_of_the_last() -> None:
    own = ProcessClock()
    own.use(StoppedTime())

    own.use(SystemClock())

    assert own.monotonic is time.monotonic
    assert own.sleep(threading.Lock(), 0.0) is True
    assert own.park(threading.Lock(), 0.0) is True
    assert own.alarm(0.0, list) is None


def test_the_randomness_of_the_library_is_its_own() -> None:
    own = ProcessClock()
    random.seed(7)
    state = random.getstate()

    own.random.random()

    assert random.getstate() == state


def test_children_draw_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "random", random.Random(7))

    def draw() -> str:
        return repr(clock.random.random())

    one, two, parent = in_child(draw), in_child(draw), draw()

    assert "" not in (one, two)
    assert len({one, two, parent}) == 3
    assert parent == repr(random.Random(7).random())  # forking changed nothing here


def test_a_child_is_seeded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "random", random.Random(7))

    _reseed_in_child()

    assert clock.random.getstate() != random.Random(7).getstate()


def test_where_nothing_forks_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")

    assert loaded_again("resilience._util.clock").clock is not clock


def test_where_processes_fork_the_seeding_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[tuple[str, object]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.extend(hooks.items()))

    module = loaded_again("resilience._util.clock")

    # random.Random itself is imported already, so that this module's hook is the only one.
    assert registered == [("after_in_child", module._reseed_in_child)]
