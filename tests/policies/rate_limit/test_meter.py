"""The arithmetic of a rate limit: slots, bursts, refunds and debts, against a replay of all that was taken."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._policies.rate_limit.meter import Charge, Meter

START = 1000.0


def charged(meter: Meter, cost: float, at: float, *, track: bool = True) -> Charge:
    charge = Charge(cost)
    meter.charge(charge, at, track=track)
    return charge


def test_a_new_meter_is_full() -> None:
    meter = Meter(10, 1, 3)

    assert meter.available(START) == 3
    assert meter.ready_at(3) < 0 > meter.ready_at(99)


def test_a_burst_then_one_per_interval() -> None:
    meter = Meter(10, 1, 3)
    for _ in range(3):
        assert meter.ready_at(1) <= START
        meter.take(1, START)

    assert meter.ready_at(1) == pytest.approx(START + 0.1)
    assert meter.available(START) == pytest.approx(0)
    assert meter.available(START + 0.25) == pytest.approx(2.5)
    assert meter.available(START + 9) == 3


@pytest.mark.parametrize("uptime", [0.0, 1e3, 123456.789, 1e6, 3e7])
@pytest.mark.parametrize(("rate", "burst"), [(3, 7), (7, 1000), (1e4 / 3, 5000), (60 / 7, 33)])
def test_a_burst_is_exact_however_long_the_machine_has_been_up(uptime: float, rate: float, burst: int) -> None:
    meter = Meter(rate, 1, burst)
    admitted = 0
    while meter.ready_at(1) <= uptime + meter.rounding:
        meter.take(1, uptime)
        admitted += 1

    assert admitted == burst


def test_a_cost_above_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    meter = Meter(10, 1, 5)
    meter.take(2, START)

    assert meter.ready_at(20) == pytest.approx(START + 0.2)
    meter.take(20, START + 0.2)
    assert meter.available(START + 0.2) == pytest.approx(-15)
    assert meter.ready_at(1) == pytest.approx(START + 0.2 + 1.6)


def test_less_than_was_estimated_comes_back() -> None:
    meter = Meter(10, 1, 10)
    charge = charged(meter, 8, START)
    meter.correct(charge, 3, START)

    assert meter.available(START) == pytest.approx(7)
    assert charge.cost == 3


def test_more_than_was_estimated_is_a_debt() -> None:
    meter = Meter(10, 1, 10)
    charge = charged(meter, 8, START)
    meter.correct(charge, 15, START + 0.1)

    assert meter.available(START + 0.1) == pytest.approx(-4)


def test_the_last_of_several_corrections_counts() -> None:
    meter = Meter(10, 1, 10)
    charge = charged(meter, 8, START)
    for cost in (3, 9, 0, 5):
        meter.correct(charge, cost, START)

    assert meter.available(START) == pytest.approx(5)


def test_a_refund_after_the_bucket_has_filled_up_gives_nothing() -> None:
    """Otherwise 10 units at second 0, of which none were used, and 5 at second 5 would leave more than a burst."""
    for track in (True, False):
        meter = Meter(1, 1, 10)
        first = charged(meter, 10, START, track=track)
        charged(meter, 5, START + 5, track=track)
        meter.correct(first, 0, START + 5)

        assert meter.available(START + 5) <= 5 + 1e-6


def test_a_debt_of_a_charge_that_is_not_tracked_begins_when_it_is_known() -> None:
    meter = Meter(1, 1, 10)
    charge = charged(meter, 1, START, track=False)
    meter.correct(charge, 5, START + 100)

    assert meter.available(START + 100) == pytest.approx(6)


def test_a_reset_fills_the_bucket_and_what_was_taken_before_changes_nothing_any_more() -> None:
    meter = Meter(1, 1, 10)
    charges = [charged(meter, 5, START, track=track) for track in (True, False)]
    meter.reset(START)
    for charge, cost in zip(charges, (0, 50), strict=True):
        meter.correct(charge, cost, START)

    assert meter.available(START) == 10
    meter.correct(charged(meter, 5, START, track=False), 0, START)
    assert meter.available(START) == 10


def test_what_a_fork_has_forgotten_changes_nothing_and_the_state_stays() -> None:
    meter = Meter(1, 1, 10)
    charge = charged(meter, 5, START)
    meter.forget()
    meter.correct(charge, 0, START)

    assert meter.available(START) == pytest.approx(5)


def test_new_settings_keep_what_is_missing() -> None:
    meter = Meter(1, 1, 10)
    charge = charged(meter, 8, START)
    meter.configure(10, 1, 10, START)
    assert meter.available(START) == pytest.approx(2)
    assert meter.available(START + 0.5) == pytest.approx(7)

    meter.configure(10, 1, 20, START)
    assert meter.available(START) == pytest.approx(12)
    meter.configure(10, 1, 5, START)
    assert meter.available(START) == pytest.approx(-3)
    meter.correct(charge, 0, START)
    assert meter.available(START) == pytest.approx(5)


@pytest.mark.parametrize("rate", [0.1, 10])
def test_a_charge_that_is_not_tracked_is_not_refunded_after_a_new_rate(rate: float) -> None:
    meter = Meter(1, 1, 10)
    charge = charged(meter, 8, START, track=False)
    meter.configure(rate, 1, 10, START)
    meter.correct(charge, 0, START)

    assert meter.available(START) == pytest.approx(2)


def test_new_settings_of_a_full_meter_leave_it_full() -> None:
    meter = Meter(1, 1, 10)
    meter.configure(5, 1, 7, START)
    assert meter.available(START) == 7

    meter.take(2, START)
    meter.configure(1, 5, 7, START + 100)
    assert meter.available(START + 100) == 7


def test_tracked_charges_keep_what_came_after_them_under_a_new_rate() -> None:
    meter = Meter(1, 1, 10)
    first = charged(meter, 10, START)
    charged(meter, 5, START + 5)
    meter.configure(2, 1, 10, START + 5)
    meter.correct(first, 0, START + 5)

    assert meter.available(START + 5) == pytest.approx(5)


Step = tuple[float, float, float]
steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 20.0]), st.integers(1, 8), st.integers(0, 12)), max_size=14
)


def replayed(taken: list[tuple[float, float]], interval: float) -> float:
    """Return when the bucket is full, if that was taken at these times."""
    full_at = -math.inf
    for at, cost in taken:
        full_at = max(full_at, at) + cost * interval
    return full_at


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(steps=steps, order=st.randoms(use_true_random=False), track=st.booleans(), rate=st.sampled_from([0.5, 1, 4]))
def test_corrections_in_any_order_are_as_if_the_cost_had_been_known(
    steps: list[Step], order: Random, track: bool, rate: float
) -> None:
    """Tracked, refunds are exact, and no correction ever leaves more than a replay of what was really used."""
    meter = Meter(rate, 1, 8)
    now = START
    open_ones: list[tuple[int, Charge, float]] = []
    taken: list[tuple[float, float]] = []
    for index, (wait, cost, used) in enumerate(steps):
        now = max(now + wait, meter.ready_at(cost))
        charge = charged(meter, cost, now, track=track)
        taken.append((now, cost))
        open_ones.append((index, charge, min(used, cost)))
        order.shuffle(open_ones)
        while len(open_ones) > 3:
            settle(meter, open_ones, taken, now)
    while open_ones:
        settle(meter, open_ones, taken, now)
        least = replayed(taken, meter.interval)
        assert meter.full_at >= least - 1e-6 or max(meter.full_at, least) <= now + 1e-6
        if track:
            assert max(meter.full_at, now) == pytest.approx(max(least, now))


def settle(
    meter: Meter, open_ones: list[tuple[int, Charge, float]], taken: list[tuple[float, float]], now: float
) -> None:
    index, charge, used = open_ones.pop()
    meter.correct(charge, used, now)
    meter.tracked.pop(charge, None)
    taken[index] = (taken[index][0], used)


def test_a_correction_after_a_debt_of_a_later_call_refunds_what_is_left() -> None:
    meter = Meter(10, 1.0, 20)
    first, second = Charge(20), Charge(7)
    meter.charge(first, 0.0, track=True)
    meter.charge(second, 2.0, track=True)

    meter.correct(second, 19, 2.0)
    meter.correct(first, 5, 2.0)

    assert meter.available(2.0) == 1


def test_the_debt_of_a_call_is_not_what_came_after_it() -> None:
    meter = Meter(10, 1.0, 20)
    one = Charge(7)
    meter.charge(one, 0.0, track=True)
    meter.correct(one, 19, 0.0)
    meter.tracked.clear()

    meter.correct(one, 7, 0.0)

    assert meter.available(0.0) == 13
