"""One event in an interval passes, the others are counted, exactly, also under threads."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from resilience._util.clock import clock
from resilience._util.throttle import Throttle
from resilience.testing import VirtualClock, virtual_time
from tests.support.fork import in_child
from tests.support.threads import in_threads

THREADS = 8
EVENTS = 2_000


@pytest.fixture
def interval() -> Generator[None]:
    """Restore the interval after the test."""
    before = Throttle.interval
    yield
    Throttle.interval = before


def event(throttle: Throttle) -> int | None:
    """Do what the code that has an event does."""
    until = throttle.until
    if until and throttle.since <= clock.monotonic() < until:
        next(throttle.held_back)
        return None
    return throttle.let_pass()


def test_the_first_event_passes_and_those_of_the_interval_are_counted(virtual_clock: VirtualClock) -> None:
    throttle = Throttle()

    assert [event(throttle) for _ in range(5)] == [0, None, None, None, None]
    assert (throttle.untold(), throttle.untold()) == (4, 4)
    virtual_clock.advance(9.5)
    assert event(throttle) is None
    virtual_clock.advance(0.5)
    assert event(throttle) == 5
    assert throttle.untold() == 0


def test_each_number_is_told_once(virtual_clock: VirtualClock) -> None:
    throttle = Throttle()
    told: list[int | None] = []
    for _ in range(3):
        told += [event(throttle) for _ in range(3)]
        virtual_clock.advance(10)

    assert told == [0, None, None, 2, None, None, 2, None, None]
    assert throttle.untold() == 2


@pytest.mark.usefixtures("interval")
def test_without_an_interval_all_pass(virtual_clock: VirtualClock) -> None:
    Throttle.interval = 0.0
    throttle = Throttle()

    assert [event(throttle) for _ in range(3)] == [0, 0, 0]


@pytest.mark.usefixtures("interval")
@pytest.mark.parametrize(("seconds", "passes"), [(0.0, 1), (2.0, None), (1.0, 1)])
def test_a_changed_interval_applies_at_once(virtual_clock: VirtualClock, seconds: float, passes: int | None) -> None:
    throttle, unused = Throttle(), Throttle()
    event(throttle)
    event(throttle)
    virtual_clock.advance(1)

    Throttle.interval = seconds
    throttle.interval_changed()
    unused.interval_changed()

    assert event(throttle) == passes
    assert event(unused) == 0


def test_a_clock_that_was_set_back_does_not_close_it() -> None:
    throttle = Throttle()
    with virtual_time() as time:
        time.advance(3_600)
        assert [event(throttle), event(throttle)] == [0, None]

    assert event(throttle) == 1


@pytest.mark.usefixtures("frequent_switches")
def test_of_threads_that_come_at_once_one_passes_and_the_others_are_counted(virtual_clock: VirtualClock) -> None:
    throttle = Throttle()

    passed = in_threads(THREADS, lambda index: throttle.let_pass())

    assert sorted(passed, key=str) == [0] + [None] * (THREADS - 1)
    assert throttle.untold() == THREADS - 1


@pytest.mark.usefixtures("frequent_switches")
def test_the_numbers_are_exact_under_threads(virtual_clock: VirtualClock) -> None:
    throttle = Throttle()

    def work(index: int) -> list[int | None]:
        passed: list[int | None] = []
        for _ in range(EVENTS):
            passed.append(event(throttle))
            virtual_clock.advance(0.01)
        return passed

    told = [number for numbers in in_threads(THREADS, work) for number in numbers if number is not None]

    assert len(told) + sum(told) + throttle.untold() == THREADS * EVENTS
    assert 2 <= len(told) <= virtual_clock.elapsed / Throttle.interval + 1


def test_a_forked_child_counts_on() -> None:
    throttle = Throttle()
    event(throttle)

    assert in_child(lambda: f"{event(throttle)} {throttle.untold()}") == "None 1"
    assert throttle.untold() == 0
