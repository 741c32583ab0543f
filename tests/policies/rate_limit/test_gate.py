"""Admission, waiting, refunds and rejections of a rate limit, by its hooks and through pipelines on every runtime."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

from resilience import (
    Bulkhead,
    Call,
    CircuitBreaker,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Pipeline,
    RateLimit,
    RateLimitedError,
    RejectedError,
    Retry,
    Timeout,
    backoff,
    deadline_after,
)
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import ABANDONED, OK
from resilience._util.finalizers import run_pending
from resilience._util.locks import state_lock
from resilience.events import Rejected
from resilience.testing import Recorder, VirtualClock
from tests.policies.rate_limit.helpers import admitted, call_of, empty, exceeds, now, queued
from tests.support.functions import down
from tests.support.loops import Run, each_loop
from tests.support.policies import Closed, Streaming
from tests.support.threads import in_threads, wait_until


class TestAdmission:
    def test_a_burst_is_admitted_at_once_and_then_calls_wait(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=3)
        for _ in range(3):
            admitted(limit)
        tickets = [queued(limit) for _ in range(2)]

        assert [round(ticket.check_at - now(), 6) for ticket in tickets] == [0.1, 0.2]
        assert limit.queued == 2
        clock.advance(0.1)
        assert tickets[0].acquire()
        assert not tickets[1].acquire()

    @pytest.mark.parametrize("uptime", [65_536.0, 66_295.22, 1e6, 1e7, 3.1e7])
    @pytest.mark.parametrize("rate", [10, 3, 7])
    def test_those_who_wait_are_admitted_in_time_however_long_the_machine_has_run(
        self, clock: VirtualClock, uptime: float, rate: float
    ) -> None:
        """Times are coarser then: a computed time and the one that has come differ by rounding."""
        clock.advance(uptime)
        limit = RateLimit(rate, max_wait=60)
        admitted(limit)
        for ticket in [queued(limit) for _ in range(20)]:
            assert not ticket.acquire()
            clock.advance(1 / rate)
            assert ticket.acquire()

    def test_a_wait_that_would_be_too_long_is_not_started(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=0.25)
        admitted(limit)
        queued(limit)
        queued(limit)
        with pytest.raises(RateLimitedError) as caught:
            limit.admit(call_of(limit))

        assert caught.value.retry_after == pytest.approx(0.3)
        assert (caught.value.reason, caught.value.policy, caught.value.unprocessed) == ("rate", "rate_limit", True)
        assert "0.3 s" in str(caught.value)
        assert clock.elapsed == 0
        assert limit.snapshot()["rejected"] == 1

    def test_a_wait_past_the_deadline_is_not_started(self, clock: VirtualClock) -> None:
        limit = RateLimit(10)
        admitted(limit)
        for seconds in (0.05, 0.1):
            with deadline_after(seconds), pytest.raises(RateLimitedError):
                limit.call(str)
        with deadline_after(0.11):
            limit.call(str)

        assert clock.elapsed == pytest.approx(0.1)
        assert limit.queued == 0

    def test_without_max_wait_a_call_waits_for_a_period_at_most(self, clock: VirtualClock) -> None:
        limit = RateLimit(2, per=10)
        admitted(limit)
        queued(limit)
        queued(limit)
        with pytest.raises(RateLimitedError):
            limit.admit(call_of(limit))

    def test_nobody_waits_with_a_max_wait_of_0(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=2, max_wait=0)
        for _ in range(2):
            limit.call(str)
        with pytest.raises(RateLimitedError):
            limit.call(str)
        clock.advance(0.1)
        limit.call(str)

    def test_a_later_call_never_overtakes(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=5, cost=lambda call: len(call.args), max_wait=10)
        call = call_of(limit)
        call.args = (1,) * 5
        limit.admit(call)
        big: Any = limit.admit(call)
        call.args = (1,)
        small: Any = limit.admit(call)

        assert limit.queued == 2
        clock.advance(0.5)
        assert big.acquire()
        assert not small.acquire()

    def test_a_debt_delays_those_who_come_after_those_who_wait(self, clock: VirtualClock) -> None:
        limit = RateLimit(1, max_wait=1e6)
        began = now()
        with limit.reserve(1) as reserved:
            first, second = queued(limit), queued(limit)
            reserved.settle(6)
        clock.jump(first.check_at)
        assert first.acquire()

        assert queued(limit).check_at - began == pytest.approx(8)
        assert not second.acquire()
        assert now() - began == pytest.approx(6)

    def test_lateness_of_timers_loses_no_slot_and_a_stall_gives_none(self, clock: VirtualClock) -> None:
        for late, next_in in ((0.003, 0.097), (0.3, 0.1)):
            limit = RateLimit(10, max_wait=10)
            admitted(limit)
            first, second = queued(limit), queued(limit)
            clock.advance(0.1 + late)
            assert first.acquire()
            assert not second.acquire()
            assert second.check_at - now() == pytest.approx(next_in)
            second.leave()

    def test_inside_a_change_of_the_state_calls_that_need_the_lock_are_refused(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, cost=2)
        with state_lock, pytest.raises(RateLimitedError) as caught:
            limit.call(str)
        assert caught.value.retry_after is None

    def test_a_call_that_costs_nothing_passes_unless_there_is_a_debt(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=1, cost=lambda call: len(call.args))
        with limit.reserve(1):
            limit.call(str)
        limit.call(str, "a")
        assert clock.elapsed == pytest.approx(0.1)
        with limit.reserve(0) as reserved:
            reserved.settle(5)
        limit.call(str)
        assert clock.elapsed == pytest.approx(0.6)


class TestRefunds:
    def test_a_call_that_an_inner_policy_rejects_takes_nothing(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=2)
        for inner in (Closed(), Bulkhead(1)):
            pipeline = Pipeline(limit, inner)
            with Bulkhead(1).calling() if isinstance(inner, Closed) else inner.calling():
                for _ in range(5):
                    with pytest.raises(RejectedError):
                        pipeline.call(str)
        assert limit.available == pytest.approx(2)

    @pytest.mark.parametrize("settings", [{}, {"cost": 2}, {"cost": 2, "actual": len}])
    def test_so_for_every_kind_of_token(self, clock: VirtualClock, settings: dict[str, Any]) -> None:
        limit = RateLimit(10, burst=2, **settings)
        pipeline = Pipeline(limit, Closed())
        for _ in range(5):
            with pytest.raises(Exception, match="closed"):
                pipeline.call(str)

        assert limit.available == pytest.approx(2)

    def test_a_deadline_that_has_passed_at_the_call_takes_nothing(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=2)
        with deadline_after(1):
            clock.advance(1)
            with pytest.raises(DeadlineExceededError):
                limit.call(str)

        assert limit.available == pytest.approx(2)

    def test_a_call_that_was_made_has_taken_its_cost_however_it_ended(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=4)

        def rejected_further_in() -> None:
            raise RateLimitedError("of another pipeline")

        limit.call(str)
        for function in (down, rejected_further_in):
            with pytest.raises((ConnectionError, RateLimitedError)):
                limit.call(function)

        assert limit.available == pytest.approx(1)

    def test_each_attempt_of_an_outer_retry_takes_one_and_an_inner_retry_takes_none(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=9)
        retry = Retry(3, wait=backoff.none())
        with pytest.raises(ConnectionError):
            Pipeline(retry, limit).call(down)
        assert limit.available == pytest.approx(6)
        with pytest.raises(ConnectionError):
            Pipeline(limit, retry).call(down)
        assert limit.available == pytest.approx(5)

    def test_a_refund_moves_those_who_wait_forward(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=10)
        token = admitted(limit)
        ticket = queued(limit)
        woken: list[str] = []
        assert ticket.add_waker(lambda: woken.append("woken"))
        limit.settle(token, ABANDONED)

        assert woken == ["woken"]
        assert ticket.acquire()

    def test_it_is_no_use_to_whom_the_bucket_has_filled_up_for(self, clock: VirtualClock) -> None:
        limit = RateLimit(1, burst=10)
        tokens = [admitted(limit) for _ in range(10)]
        clock.advance(10)
        for _ in range(5):
            admitted(limit)
        for token in tokens:
            limit.settle(token, ABANDONED)

        assert limit.available == pytest.approx(5)

    def test_a_settlement_inside_a_change_of_the_state_is_put_off(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=3)
        token = admitted(limit)
        with state_lock:
            limit.settle(token, ABANDONED)
            assert limit.source.meter.available(now()) == pytest.approx(2)
        run_pending()

        assert limit.available == pytest.approx(3)

    def test_what_a_stream_has_taken_stays_taken(self, clock: VirtualClock) -> None:
        kinds: list[dict[str, Any]] = [{}, {"cost": 2}, {"cost": 1, "actual": lambda _: 2}]
        for settings in kinds:
            limit = RateLimit(10, burst=4, **settings)
            streaming = Streaming()
            Pipeline(limit, streaming).call(str)
            (left,) = streaming.left
            assert isinstance(left, DeferredSettlement)
            before = limit.available
            left.end(Ending(EndingKind.ABANDONED))

            assert limit.available == before < 4
            assert limit.source.meter.tracked == {}


class TestRuntimes:
    @each_loop
    def test_tasks_are_admitted_at_the_rate(self, run: Run) -> None:
        times: list[float] = []

        async def main() -> None:
            limit = RateLimit(20, burst=4, max_wait=60)
            began = now()

            async def one() -> None:
                await limit.acall(lambda: times.append(now() - began))

            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(one)
            assert limit.snapshot()["queued"] == 0

        run(main)
        assert len(times) == 100
        assert exceeds(times, 20, 4) == []
        assert times[-1] == pytest.approx((100 - 4) / 20)

    def test_threads_are_admitted_at_the_rate(self, clock: VirtualClock) -> None:
        limit = RateLimit(20, burst=4, max_wait=60)
        times: list[float] = []

        def work(_: int) -> None:
            for _ in range(4):
                limit.call(lambda: times.append(clock.elapsed))

        in_threads(8, work)

        assert len(times) == 32
        assert exceeds(sorted(times), 20, 4) == []
        assert max(times) == pytest.approx((32 - 4) / 20)

    @pytest.mark.usefixtures("frequent_switches")
    @pytest.mark.parametrize("settings", [{}, {"cost": 1.5}, {"actual": lambda _: 1.0}])
    def test_a_burst_is_exact_under_threads(self, clock: VirtualClock, settings: dict[str, Any]) -> None:
        limit = RateLimit(1e-3, per=1, burst=3000, max_wait=0, **settings)

        def work(_: int) -> int:
            done = 0
            for _ in range(500):
                try:
                    limit.call(str)
                    done += 1
                except RateLimitedError:
                    pass
            return done

        admitted_calls = sum(in_threads(8, work))

        assert admitted_calls == (2000 if "cost" in settings else 3000)
        assert limit.available == pytest.approx(0, abs=0.01)

    @pytest.mark.usefixtures("frequent_switches")
    def test_refunds_and_reservations_beside_quick_calls_lose_nothing(self, clock: VirtualClock) -> None:
        limit = RateLimit(1e-3, per=1, burst=100_000, max_wait=0)
        rejecting = Pipeline(limit, Closed())

        def work(number: int) -> None:
            for _ in range(300):
                if number % 3 == 0:
                    limit.call(str)
                elif number % 3 == 1:
                    with pytest.raises(Exception, match="closed"):
                        rejecting.call(str)
                else:
                    with limit.reserve(10) as reserved:
                        reserved.settle(3)

        in_threads(9, work)

        taken = 100_000 - limit.available
        assert 3 * 300 * 4 - 0.01 <= taken <= 3 * 300 * 5  # a refund after other calls may be smaller
        assert limit.source.meter.tracked == {}

    def test_all_in_one_queue(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=60)
        limit.call(str)
        order: list[str] = []

        async def task() -> None:
            thread = threading.Thread(target=limit.call, args=(order.append, "thread"))
            thread.start()
            wait_until(lambda: limit.queued == 1)
            await limit.acall(order.append, "task")
            thread.join(60)

        asyncio.run(task())
        assert sorted(order) == ["task", "thread"]


class TestRejections:
    def test_the_event_says_when_a_slot_is_free(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=0)
        pipeline = Pipeline(limit, name="limited")
        with Recorder(pipeline) as recorder:
            pipeline.call(str)
            with pytest.raises(RateLimitedError) as caught:
                pipeline.call(str)

        (event,) = recorder.of(Rejected)
        assert (event.reason, event.error_type, event.policy) == ("rate", "RateLimitedError", "rate_limit")
        assert event.retry_after == caught.value.retry_after == pytest.approx(0.1)
        assert "rate_limit of limited" in str(caught.value)

    def test_a_wait_that_a_debt_made_too_long_ends_with_a_rejection(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=0.5)
        reserved = limit.reserve(1)

        async def main() -> None:
            async with reserved:
                waiting = asyncio.ensure_future(limit.acall(str))
                await asyncio.sleep(0.01)
                reserved.settle(50)
                with pytest.raises(RateLimitedError) as caught:
                    await waiting
            assert caught.value.retry_after == pytest.approx(4.5)

        asyncio.run(main())
        assert clock.elapsed == pytest.approx(0.5)

    def test_the_deadline_in_the_queue_is_one_of_nothing_called(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=5)
        pipeline = Pipeline(Timeout(1), limit)

        async def main() -> None:
            async with limit.reserve(1) as reserved:
                waiting = asyncio.ensure_future(pipeline.acall(str))
                await asyncio.sleep(0.01)
                reserved.settle(50)
                with pytest.raises(DeadlineExceededError) as caught:
                    await waiting
            assert caught.value.unprocessed

        asyncio.run(main())
        assert clock.elapsed == pytest.approx(1)

    def test_inside_a_change_of_the_state_the_rejection_has_no_time(self, clock: VirtualClock) -> None:
        limit = RateLimit(10)
        empty(limit)
        assert limit.rejection(call_of(limit)).retry_after == pytest.approx(0.1)
        with state_lock:
            assert limit.rejection(call_of(limit)).retry_after is None

    def test_no_retry_repeats_it(self, clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(3, wait=backoff.none()), RateLimit(10, max_wait=0))
        pipeline.call(str)
        with pytest.raises(RateLimitedError):
            pipeline.call(str)
        assert pipeline.get(RateLimit).snapshot()["rejected"] == 1

    def test_a_good_ending_refunds_nothing(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=2)
        limit.settle(admitted(limit), OK)
        assert limit.available == pytest.approx(1)


def test_two_gates_are_driven_as_a_pair_or_one_by_one_to_the_same_effect(clock: VirtualClock) -> None:
    kinds: list[dict[str, Any]] = [{}, {"actual": lambda _: 3}]
    for settings in kinds:
        limit = RateLimit(10, burst=10, **settings)
        pipeline = Pipeline(CircuitBreaker(), limit)
        outside = Pipeline(limit, CircuitBreaker())
        for one in (pipeline, outside):
            assert one.call(int) == 0
            with pytest.raises(ConnectionError):
                one.call(down)
        assert limit.available == pytest.approx(2 if settings else 6)


class TestManyWaiting:
    """Only the first in the queue goes at its time; the others must not look again and again meanwhile."""

    @each_loop
    def test_a_lower_rate_is_waited_for(self, run: Run) -> None:
        limit = RateLimit(1000, max_wait=60.0)

        async def main() -> float:
            started = now()
            async with anyio.create_task_group() as group:
                for _ in range(200):
                    group.start_soon(Pipeline(limit).acall, int)
                await anyio.sleep(0.01)
                limit.update(rate=20)
            return now() - started

        assert run(main) == pytest.approx(9.5, abs=0.2)

    @each_loop
    def test_a_debt_is_waited_for(self, run: Run) -> None:
        limit = RateLimit(10, burst=5, max_wait=60.0)

        async def main() -> float:
            started = now()
            async with limit.reserve(1) as reserved, anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(Pipeline(limit).acall, int)
                await anyio.sleep(0.05)
                reserved.settle(20)
            return now() - started

        assert run(main) == pytest.approx(2.3, abs=0.05)

    def test_a_ticket_that_is_due_and_not_the_first_looks_later(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=60.0)
        admitted(limit)
        tickets = [queued(limit) for _ in range(3)]
        clock.advance(0.1)
        limit.update(rate=0.1)
        clock.advance(0.2)

        assert not tickets[2].acquire()

        assert tickets[2].check_at > now()


class TestRejectionsAfterAWait:
    def test_they_are_counted_and_the_cost_is_asked_once(self, clock: VirtualClock) -> None:
        asked: list[int] = []

        def cost(call: Call) -> float:
            asked.append(1)
            return 5.0 if len(asked) == 2 else 1.0

        limit = RateLimit(10, burst=5, max_wait=0.5, cost=cost)
        limit.reserve(5).__enter__()

        async def rejected() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(later)
                with pytest.raises(RateLimitedError) as caught:
                    await Pipeline(limit).acall(int)
                errors.append(caught.value)

        async def later() -> None:
            await anyio.sleep(0.1)
            limit.update(rate=1)

        asked.append(0)
        errors: list[RateLimitedError] = []
        asyncio.run(rejected())
        (error,) = errors

        assert limit.snapshot()["rejected"] == 1
        assert error.retry_after is not None
        assert error.retry_after > 3.0
        assert len(asked) == 2
