"""The estimator of quantiles: it is accurate, forgets, and counts exactly under threads."""

from __future__ import annotations

import math
import random
import threading

import pytest

from resilience._util.quantile import WINDOW, QuantileEstimator
from resilience.testing import VirtualClock
from tests.support.fork import in_child
from tests.support.threads import in_threads


@pytest.fixture
def estimator(virtual_clock: VirtualClock) -> QuantileEstimator:
    del virtual_clock
    return QuantileEstimator(0.95)


def test_without_durations_it_knows_nothing(estimator: QuantileEstimator) -> None:
    assert estimator.estimate() is None
    assert estimator.count == 0


@pytest.mark.parametrize("p", [0.5, 0.95, 0.99])
def test_it_is_within_two_percent_of_the_quantile_of_the_sample(virtual_clock: VirtualClock, p: float) -> None:
    chance = random.Random(7)
    durations = sorted(math.exp(chance.gauss(-3, 1)) for _ in range(5000))
    estimator = QuantileEstimator(p)

    for duration in durations:
        estimator.add(duration)
    virtual_clock.advance(2)

    assert estimator.estimate() == pytest.approx(durations[round(p * len(durations)) - 1], rel=0.02)


def test_it_says_nothing_before_the_least_number_is_known(
    virtual_clock: VirtualClock, estimator: QuantileEstimator
) -> None:
    for _ in range(99):
        estimator.add(0.1)
    assert estimator.estimate(100) is None

    estimator.add(0.1)
    virtual_clock.advance(1)

    assert estimator.estimate(100) == pytest.approx(0.1, rel=0.02)


def test_it_is_computed_again_after_a_second_or_a_hundred_durations(
    virtual_clock: VirtualClock, estimator: QuantileEstimator
) -> None:
    estimator.add(0.1)
    assert estimator.estimate() == pytest.approx(0.1, rel=0.02)

    estimator.add(5.0)
    assert estimator.estimate() == pytest.approx(0.1, rel=0.02)
    virtual_clock.advance(1)
    assert estimator.estimate() == pytest.approx(5.0, rel=0.02)

    for _ in range(5000):
        estimator.add(0.2)
    assert estimator.estimate() == pytest.approx(0.2, rel=0.02)


def test_it_forgets_what_is_older_than_two_windows(virtual_clock: VirtualClock, estimator: QuantileEstimator) -> None:
    for _ in range(50):
        estimator.add(9.0)
    assert estimator.count == 50

    virtual_clock.advance(WINDOW)
    estimator.add(0.1)
    assert estimator.count == 51  # those of the window before still count

    virtual_clock.advance(WINDOW)
    assert estimator.count == 1
    virtual_clock.advance(2 * WINDOW)
    assert estimator.count == 0
    assert estimator.estimate() is None


def test_durations_of_zero_are_counted(estimator: QuantileEstimator) -> None:
    estimator.add(0.0)

    assert estimator.count == 1
    assert estimator.estimate() == pytest.approx(0.0, abs=1e-8)


def test_it_can_forget_everything(virtual_clock: VirtualClock, estimator: QuantileEstimator) -> None:
    estimator.add(1.0)
    estimator.estimate()

    estimator.clear()

    assert (estimator.estimate(), estimator.count) == (None, 0)


@pytest.mark.usefixtures("frequent_switches")
def test_no_duration_is_lost_or_counted_twice_under_threads(estimator: QuantileEstimator) -> None:
    def add(_: int) -> None:
        for _ in range(2000):
            estimator.add(0.1)

    in_threads(8, add)

    assert estimator.count == 16_000


def test_many_sorted_durations_are_the_same_as_each_by_itself(virtual_clock: VirtualClock) -> None:
    chance = random.Random(7)
    durations = sorted([0.0, 1e-12, *(math.exp(chance.gauss(-3, 2)) for _ in range(2000))])
    one, other = QuantileEstimator(0.9), QuantileEstimator(0.9)
    for duration in durations:
        one.add(duration)
    other.add_sorted(durations[:1000])
    other.add_sorted([])
    other.add_sorted(durations[1000:])
    virtual_clock.advance(2)

    assert one.count == other.count == len(durations)
    assert one.estimate() == pytest.approx(other.estimate(), rel=0.02)


def test_sorted_durations_are_forgotten_as_others(virtual_clock: VirtualClock, estimator: QuantileEstimator) -> None:
    estimator.add_sorted([0.1] * 10)
    virtual_clock.advance(WINDOW)
    assert estimator.count == 10
    estimator.add_sorted([0.2] * 5)
    assert estimator.estimate() == pytest.approx(0.2, rel=0.02)
    virtual_clock.advance(WINDOW)

    assert estimator.count == 5


def test_it_is_usable_in_a_child_that_was_forked_while_another_thread_used_it() -> None:
    estimator = QuantileEstimator(0.9)
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with estimator._lock:
            held.set()
            over.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        assert in_child(lambda: str(estimator.estimate())) == "None"
    finally:
        over.set()
        thread.join()
