"""Reservations: estimated before, settled after, by hand."""

from __future__ import annotations

import asyncio
import copy
from contextlib import ExitStack
from typing import Any

import pytest

from resilience import RateLimit, RateLimitedError, UsageError
from resilience._util.finalizers import run_pending
from resilience._util.locks import state_lock
from resilience.testing import VirtualClock
from tests.policies.rate_limit.helpers import admitted, now, queued
from tests.support.loops import Run, each_loop

pytestmark = pytest.mark.usefixtures("clock")


def test_less_is_refunded_and_more_delays_who_comes_next(clock: VirtualClock) -> None:
    limit = RateLimit(100, burst=1000)
    with limit.reserve(600) as reserved:
        assert limit.available == pytest.approx(400)
        reserved.settle(200)
        assert limit.available == pytest.approx(800)
    with limit.reserve(600) as reserved:
        reserved.settle(1300)
    assert limit.available == pytest.approx(-500)
    limit.update(max_wait=60)
    with limit.reserve(100):
        assert clock.elapsed == pytest.approx(6)


@each_loop
def test_a_task_waits(run: Run) -> None:
    async def main() -> None:
        limit = RateLimit(100, burst=100, max_wait=60)
        began = now()
        async with limit.reserve(100):
            pass
        async with limit.reserve(50) as reserved:
            assert now() - began == pytest.approx(0.5)
            reserved.settle(20)
        assert limit.available == pytest.approx(30)
        with pytest.raises(UsageError, match="async with"), limit.reserve(50):
            pass
        assert limit.queued == 0
        assert limit.available == pytest.approx(30)

    run(main)


def test_the_last_number_counts_also_after_the_block() -> None:
    limit = RateLimit(100, burst=1000)
    with limit.reserve(100) as reserved:
        for units in (300, 10, 40):
            reserved.settle(units)
        assert limit.available == pytest.approx(960)
    reserved.settle(90)
    assert limit.available == pytest.approx(910)
    reserved.settle(20)
    assert limit.available == pytest.approx(980)


def test_a_block_that_is_not_settled_has_taken_its_estimate() -> None:
    limit = RateLimit(100, burst=1000)
    with pytest.raises(ValueError, match="broken"), limit.reserve(100):
        raise ValueError("broken")
    with limit.reserve(50):
        pass

    assert limit.available == pytest.approx(850)
    assert limit.source.meter.tracked == {}


def test_without_a_number_it_takes_the_cost_of_the_settings() -> None:
    limit = RateLimit(100, burst=1000, cost=30)
    with limit.reserve() as reserved:
        assert limit.available == pytest.approx(970)
        reserved.settle(10)
    assert limit.available == pytest.approx(990)


def test_a_rejected_one_takes_nothing_and_is_not_entered() -> None:
    limit = RateLimit(100, burst=100, max_wait=0.1)
    with limit.reserve(100):
        pass
    reserved = limit.reserve(50)
    with pytest.raises(RateLimitedError), reserved:
        pytest.fail("there is no slot")
    with pytest.raises(UsageError, match="during its block"):
        reserved.settle(3)

    assert limit.available == pytest.approx(0)


def test_a_refund_moves_those_who_wait_forward() -> None:
    limit = RateLimit(1, burst=10, max_wait=60)
    with limit.reserve(10) as reserved:
        ticket = queued(limit)
        reserved.settle(9)
        assert ticket.acquire()


def test_it_is_entered_once() -> None:
    limit = RateLimit(100, burst=100)
    reserved = limit.reserve(1)
    with reserved, pytest.raises(UsageError, match="entered before"), reserved:
        pass
    assert limit.available == pytest.approx(99)


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_where_the_limit_does_not_act_it_settles_nothing(mode: Any, clock: VirtualClock) -> None:
    limit = RateLimit(1, burst=1, mode=mode)
    admitted(limit)
    with limit.reserve(1) as reserved:
        reserved.settle(100)
    assert limit.available == pytest.approx(0)
    assert clock.elapsed == 0


def test_in_shadow_mode_one_that_would_have_been_admitted_counts() -> None:
    limit = RateLimit(1, burst=100, mode="shadow")
    with limit.reserve(50) as reserved:
        reserved.settle(60)
    assert limit.available == pytest.approx(40)


def test_settling_inside_a_change_of_the_state_is_put_off() -> None:
    limit = RateLimit(1, burst=100)
    with limit.reserve(50) as reserved:
        with state_lock:
            reserved.settle(10)
        run_pending()
        assert limit.available == pytest.approx(90)


@pytest.mark.parametrize(
    ("units", "error"), [(-1, ValueError), (float("nan"), ValueError), ("3", TypeError), (True, TypeError)]
)
def test_bad_numbers_are_refused(units: Any, error: type[Exception]) -> None:
    limit = RateLimit(1, burst=100)
    with pytest.raises(error, match="cost must be a number >= 0"):
        limit.reserve(units)
    with limit.reserve(50) as reserved:
        with pytest.raises(error, match="units must be a number >= 0"):
            reserved.settle(units)
        assert limit.available == pytest.approx(50)


class TestOfSeveral:
    def test_estimates_and_units_are_by_limit(self) -> None:
        requests = RateLimit(10, burst=5, name="requests")
        tokens = RateLimit(100, burst=1000, name="tokens")
        both = RateLimit.all_of(requests, tokens)

        async def main() -> None:
            async with both.reserve({tokens: 600}) as reserved:
                assert (requests.available, tokens.available) == pytest.approx((4, 400))
                reserved.settle({tokens: 700})
            async with both.reserve():
                pass

        asyncio.run(main())
        assert (requests.available, tokens.available) == pytest.approx((3, 299))

    def test_bad_ones_are_refused(self) -> None:
        one, other = RateLimit(1, name="one"), RateLimit(1)
        both: Any = RateLimit.all_of(one)
        with pytest.raises(TypeError, match="costs must be a mapping such as"):
            both.reserve(3)
        with pytest.raises(ValueError, match="costs must name rate limits that were given to all_of"):
            both.reserve({other: 3})
        with pytest.raises(ValueError, match=r"costs\[one\] must be a number >= 0, not -1"):
            both.reserve({one: -1})


def test_blocks_may_end_in_any_order() -> None:
    limit = RateLimit(1, burst=100)
    stacks = [ExitStack() for _ in range(3)]
    reservations = [stack.enter_context(limit.reserve(10)) for stack in stacks]
    for stack in stacks:
        stack.close()
    for units, reserved in enumerate(reservations):
        reserved.settle(units)

    assert 67 <= limit.available <= 97


def test_it_is_not_copied() -> None:
    reserved = RateLimit(1).reserve(1)
    with pytest.raises(TypeError, match="settled twice"):
        copy.copy(reserved)
