"""RateLimit: its settings, costs and what calls really took, updates, snapshot, reset, modes, blocks, and forks."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from resilience import Call, Pipeline, RateLimit, RateLimitedError, UsageError
from resilience._policies.base import forget_calls
from resilience._util.clock import clock as library_clock
from resilience._util.locks import inside_state, state_lock
from resilience.events import Queued, Rejected
from resilience.testing import Recorder, VirtualClock
from tests.policies.rate_limit.helpers import admitted, call_of, empty, exceeds, now, queued
from tests.support.fork import in_child
from tests.support.loops import Run, each_loop

pytestmark = [
    pytest.mark.usefixtures("clock", "nothing_logged_yet"),
]


class TestCosts:
    def test_a_cost_is_a_number_or_a_function_of_the_call(self) -> None:
        limit = RateLimit(10, burst=10, cost=lambda call: len(call.args[0]))
        limit.call(len, "1234")
        assert limit.available == pytest.approx(6)
        limit.update(cost=2.5)
        limit.call(str)
        assert limit.available == pytest.approx(3.5)
        limit.update(cost=1)
        limit.call(str)
        assert limit.available == pytest.approx(2.5)

    def test_what_a_cost_raises_is_raised_and_nothing_is_called(self) -> None:
        limit = RateLimit(10, cost=lambda call: len(call.args[0]))
        with pytest.raises(IndexError):
            limit.call(pytest.fail)
        assert limit.available == 1

    def test_a_cost_above_the_burst_is_not_refused_and_the_rate_is_kept(self, clock: VirtualClock) -> None:
        limit = RateLimit(100, burst=10, cost=50, max_wait=10)
        times: list[float] = []
        for _ in range(4):
            limit.call(lambda: times.append(clock.elapsed))

        assert times == pytest.approx([0, 0.5, 1.0, 1.5])

    def test_costs_keep_the_rate(self, clock: VirtualClock) -> None:
        costs = [1, 7, 3, 20, 2, 2, 11, 5] * 4
        limit = RateLimit(10, burst=20, cost=lambda call: call.args[0], max_wait=100)
        times: list[float] = []
        for cost in costs:
            limit.call(lambda _: times.append(clock.elapsed), cost)

        assert exceeds(times, 10, 20, costs) == []
        assert sum(costs) == pytest.approx(20 + 10 * clock.elapsed)


class TestActual:
    def test_what_a_call_really_took_is_refunded_or_owed(self) -> None:
        limit = RateLimit(10, burst=100, cost=50, actual=int)
        pipeline = Pipeline(limit)
        assert pipeline.call(lambda: 20) == 20
        assert limit.available == pytest.approx(80)
        assert asyncio.run(pipeline.acall(lambda: 75)) == 75
        assert limit.available == pytest.approx(5)
        assert limit.source.meter.tracked == {}

    def test_none_leaves_the_cost_and_so_does_a_failure(self) -> None:
        limit = RateLimit(10, burst=100, cost=30, actual=lambda result: None)
        limit.call(str)

        def fail() -> None:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            limit.call(fail)
        assert limit.available == pytest.approx(40)
        assert limit.source.meter.tracked == {}

    @pytest.mark.parametrize("actual", [lambda _: 1 / 0, lambda _: -1, lambda _: "3", lambda _: float("nan")])
    def test_one_that_fails_is_logged_once_and_the_cost_stays(
        self, actual: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        limit = RateLimit(10, burst=100, cost=30, actual=actual)
        for _ in range(2):
            assert limit.call(int) == 0

        assert limit.available == pytest.approx(40)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert limit.source.meter.tracked == {}

    def test_a_value_that_came_too_late_has_taken_what_it_took(self, clock: VirtualClock) -> None:
        from resilience import Timeout

        limit = RateLimit(1, burst=100, cost=30, actual=int)

        def slow() -> int:
            clock.advance(5)
            return 90

        assert Pipeline(limit, Timeout(1)).call(slow) == 90
        assert limit.available == pytest.approx(10 + 5)

    def test_it_can_be_set_while_running(self) -> None:
        limit = RateLimit(10, burst=100)
        pipeline = Pipeline(limit)
        pipeline.call(int)
        limit.update(actual=lambda _: 10)
        pipeline.call(int)
        limit.update(actual=None)
        pipeline.call(int)

        assert limit.available == pytest.approx(88)

    def test_in_shadow_mode_it_counts_those_who_would_have_been_admitted(self) -> None:
        limit = RateLimit(10, burst=20, cost=10, actual=lambda _: 15, mode="shadow")
        for _ in range(3):
            limit.call(int)

        assert limit.available == pytest.approx(5)


class TestQuickCalls:
    """Calls of cost 1 that find no queue take no lock."""

    def test_one_that_comes_when_a_waiting_call_is_due_does_not_overtake_it(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, max_wait=60)
        admitted(limit)
        first = queued(limit)
        clock.advance(0.1)
        second = queued(limit)

        assert first.acquire()
        assert not second.acquire()
        clock.advance(0.1)
        assert second.acquire()
        clock.advance(0.1)
        assert not isinstance(admitted(limit), tuple)
        clock.advance(0.1)
        assert isinstance(admitted(limit), tuple)

    def test_while_a_reservation_is_open_they_count_in_what_it_is_refunded(self, clock: VirtualClock) -> None:
        limit = RateLimit(1, burst=10)
        with limit.reserve(10) as reserved:
            clock.advance(5)
            for _ in range(5):
                admitted(limit)
            reserved.settle(0)
            assert limit.available == pytest.approx(5)

    @pytest.mark.parametrize("change", ["admit", "settle", "update", "reset"])
    def test_none_is_admitted_in_the_middle_of_a_longer_change(
        self, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another thread, or a finalizer, comes while the clock is read."""
        limit = RateLimit(1, burst=10, max_wait=0)
        reserved = limit.reserve(2)
        reserved.__enter__()
        if change != "admit":
            reserved.__exit__(None, None, None)
            admitted(limit)
        came: list[float] = []
        refused: list[RateLimitedError] = []
        monotonic = library_clock.monotonic

        def interrupted() -> float:
            at = monotonic()
            if inside_state() and not came:
                came.append(at)
                try:
                    admitted(limit)
                except RateLimitedError as error:
                    refused.append(error)
            return at

        monkeypatch.setattr(library_clock, "monotonic", interrupted)
        if change == "admit":
            with limit.reserve(3):
                pass
        elif change == "settle":
            reserved.settle(1)
        elif change == "update":
            limit.update(rate=2)
        else:
            limit.reset()
        monkeypatch.undo()

        assert len(refused) == 1
        assert limit.available == {"admit": 5, "settle": 8, "update": 7, "reset": 10}[change]

    def test_a_member_of_a_combination_takes_the_lock(self) -> None:
        limit = RateLimit(1, burst=10)
        admitted(limit)
        both = RateLimit.all_of(limit)
        admitted(limit)
        with state_lock, pytest.raises(RateLimitedError):
            limit.admit(call_of(limit))
        admitted(both)
        assert limit.available == pytest.approx(7)


class TestUpdate:
    def test_waiting_calls_follow_a_new_rate(self, clock: VirtualClock) -> None:
        limit = RateLimit(1, max_wait=60)
        admitted(limit)
        first, second = queued(limit), queued(limit)
        woken: list[str] = []
        assert first.add_waker(lambda: woken.append("first"))
        limit.update(rate=10)

        assert woken == ["first"]
        assert first.check_at - now() == pytest.approx(0.1)
        clock.advance(0.1)
        assert first.acquire()
        assert not second.acquire()
        limit.update(rate=1)
        clock.advance(0.1)
        assert not second.acquire()
        clock.advance(0.9)
        assert second.acquire()

    def test_a_larger_burst_admits_waiting_calls_at_once(self) -> None:
        limit = RateLimit(1, max_wait=60)
        admitted(limit)
        tickets = [queued(limit) for _ in range(3)]
        limit.update(burst=3)

        assert [ticket.acquire() for ticket in tickets] == [True, True, False]

    def test_a_smaller_burst_keeps_what_was_taken(self) -> None:
        limit = RateLimit(1, burst=10)
        for _ in range(5):
            admitted(limit)
        limit.update(burst=2)

        assert limit.available == pytest.approx(-3)

    def test_it_is_all_or_nothing(self) -> None:
        limit = RateLimit(1, burst=2)
        with pytest.raises(ValueError, match="burst"):
            limit.update(rate=5, burst=0)
        with pytest.raises(TypeError, match="no setting limit"):
            limit.update(rate=5, limit=3)

        assert (limit.settings.rate, limit.source.meter.interval) == (1, 1)


class TestState:
    def test_a_snapshot_has_what_an_operator_wants(self, clock: VirtualClock) -> None:
        limit = RateLimit(120, per=60, burst=2, max_wait=0.6)
        assert limit.snapshot() == {
            "available": 2,
            "wait": 0,
            "queued": 0,
            "rejected": 0,
            "rate": 120,
            "per": 60,
            "burst": 2,
        }
        empty(limit)
        queued(limit)
        with pytest.raises(RateLimitedError):
            limit.admit(call_of(limit))
        snapshot = limit.snapshot()

        assert (snapshot["available"], snapshot["wait"], snapshot["queued"], snapshot["rejected"]) == (0, 1.0, 1, 1)

    def test_a_reset_fills_the_bucket_and_admits_those_who_wait(self) -> None:
        limit = RateLimit(1, burst=2, max_wait=60)
        empty(limit)
        tickets = [queued(limit) for _ in range(3)]
        limit.reset()

        assert [ticket.acquire() for ticket in tickets] == [True, True, False]
        assert limit.queued == 1

    def test_settings_are_described_and_shown(self) -> None:
        limit = RateLimit(600, per=60, burst=5, actual=len, name="requests")

        assert limit.describe() == {
            "kind": "rate_limit",
            "name": "requests",
            "mode": "enforce",
            "settings": {
                "rate": 600,
                "per": 60,
                "burst": 5,
                "max_wait": None,
                "cost": 1,
                "actual": "<built-in function len>",
            },
        }
        assert repr(RateLimit(5, burst=2)) == "RateLimit(rate=5.0, burst=2.0)"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
    def test_in_a_forked_child_nobody_waits_and_late_endings_change_nothing(self) -> None:
        limit = RateLimit(1, burst=2, max_wait=60)
        pipeline = Pipeline(limit)
        tokens = [admitted(limit) for _ in range(2)]
        queued(limit)

        def child() -> str:
            from resilience._outcome.ending import ABANDONED

            before = limit.queued
            for token in tokens:
                limit.settle(token, ABANDONED)
            return f"{before} {limit.available:g}"

        assert in_child(child) == "0 0"
        assert pipeline.get(RateLimit).queued == 1


class TestModes:
    def test_in_shadow_mode_nobody_waits_and_what_would_have_happened_is_reported(self, clock: VirtualClock) -> None:
        limit = RateLimit(10, burst=2, mode="shadow")
        pipeline = Pipeline(limit)
        with Recorder(pipeline) as recorder:
            for _ in range(4):
                pipeline.call(str)

        assert clock.elapsed == 0
        assert limit.queued == 0
        assert recorder.of(Rejected) == []
        queued = recorder.of(Queued)
        assert [(str(event.mode), event.longest) for event in queued] == [("shadow", 1.0)] * 2
        assert [event.wait for event in queued] == pytest.approx([0.1, 0.1])
        assert limit.available == pytest.approx(0)

    def test_off_counts_nothing(self) -> None:
        limit = RateLimit(10, mode="off")
        for _ in range(4):
            limit.call(str)
        with limit, limit:
            pass
        assert limit.available == 1


class TestBlocks:
    def test_a_block_takes_one_whatever_leaves_it(self) -> None:
        limit = RateLimit(10, burst=5)
        with limit, limit.calling():
            pass
        for error in (ValueError, KeyboardInterrupt, RateLimitedError):
            with pytest.raises(error), limit.calling():
                raise error

        assert limit.available == pytest.approx(0)

    @each_loop
    def test_a_task_waits_with_async_with(self, run: Run) -> None:
        async def main() -> None:
            limit = RateLimit(10)
            began = now()
            for _ in range(3):
                async with limit:
                    pass
            async with limit.calling():
                assert now() - began == pytest.approx(0.3)
            with pytest.raises(UsageError, match="async with"), limit:
                pass
            assert limit.queued == 0

        run(main)

    def test_the_end_of_a_block_that_a_fork_has_forgotten_is_ignored(self) -> None:
        limit = RateLimit(10, burst=5)
        with limit:
            forget_calls(limit)
        assert limit.available == pytest.approx(4)


def test_the_attribute_of_a_call_says_how_often_it_was_made() -> None:
    seen: list[int] = []

    class Seeing(RateLimit):
        def admit(self, call: Call) -> Any:
            seen.append(call.calls_made)
            return super().admit(call)

    from resilience import Retry, backoff

    def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Pipeline(Retry(3, wait=backoff.none()), Seeing(10, burst=5)).call(fail)
    assert seen == [0, 1, 2]
