"""The gate of the key of each call is driven as one gate is, and is in use until the call's work has ended."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    CircuitBreaker,
    Gate,
    Mode,
    Partition,
    Pipeline,
    RateLimit,
    RejectedError,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
)
from resilience._call.running_call import RunningCall
from resilience._call.settlement import DeferredSettlement
from resilience._drivers.async_keyed import keyed_gate as keyed_gate_async
from resilience._drivers.sync_keyed import keyed_gate
from resilience._outcome.ending import OK
from resilience.events import Rejected
from resilience.testing import Recorder, virtual_time
from tests.support.calls import running_call
from tests.support.functions import down
from tests.support.policies import Closed, Noting
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def in_use(partition: Partition[Any]) -> int:
    members = [partition._rest, *partition._members]
    return sum(len(member.users) for member in members)


@each_way
def test_the_gate_of_the_key_admits_and_is_settled(make: Make) -> None:
    partition = Partition(Noting)
    pipeline = Pipeline(partition)

    def work() -> str:
        assert in_use(partition) == 1
        return "done"

    assert make(pipeline, work) == "done"
    assert (partition.of(None).endings, partition.overflow.endings, in_use(partition)) == (["ok"], [], 0)


@each_way
def test_a_failure_settles_it(make: Make) -> None:
    partition = Partition(Noting)
    with pytest.raises(ConnectionError):
        make(Pipeline(partition), down)

    assert (partition.of(None).endings, in_use(partition)) == (["failed"], 0)


@each_way
def test_a_rejection_is_published_under_the_name_of_the_partition(make: Make) -> None:
    partition = Partition(Closed, name="doors")
    pipeline = Pipeline(partition, name="house")
    with Recorder(pipeline) as recorder, pytest.raises(RejectedError):
        make(pipeline, int)

    (event,) = recorder.of(Rejected)
    assert (event.pipeline, event.policy, event.partition_key, event.mode) == ("house", "doors", None, "enforce")
    assert in_use(partition) == 0


@each_way
def test_an_exception_of_a_hook_is_logged_and_the_call_counted_out(
    make: Make, nothing_logged_yet: None, caplog: pytest.LogCaptureFixture
) -> None:
    partition = Partition(lambda: Noting(ValueError("broken")))

    assert make(Pipeline(partition), str) == ""
    assert in_use(partition) == 0
    assert "settle of a policy" in caplog.messages[0]


@each_way
def test_a_call_waits_in_the_queue_of_its_key_only(make: Make) -> None:
    partition = Partition(lambda: Turnstile(limit=1, room=5, patience=2.0))
    pipeline = Pipeline(partition, name="turns")
    busy = partition.of(None)
    assert busy.take()
    with virtual_time() as clock:
        assert pipeline.bind(target="other").call(int) == 0
        with Recorder(pipeline) as recorder, pytest.raises(RejectedError) as caught:
            make(pipeline, int)
        assert clock.elapsed == 2.0

    assert (caught.value.reason, caught.value.policy) == ("queue_timeout", "turnstile")
    assert [event.policy for event in recorder.of(Rejected)] == ["turnstile"]
    assert (len(busy.line), in_use(partition)) == (0, 0)


@each_way
def test_in_shadow_mode_it_reports_and_lets_through(make: Make) -> None:
    partition = Partition(Closed, mode="shadow")
    pipeline = Pipeline(partition)
    with Recorder(pipeline) as recorder:
        assert make(pipeline, str) == ""

    assert [event.mode for event in recorder.of(Rejected)] == [Mode.SHADOW]
    assert in_use(partition) == 0


@each_way
def test_off_leaves_it_out(make: Make) -> None:
    partition = Partition(Closed, mode="off")

    assert make(Pipeline(partition), str) == ""
    assert len(partition) == 0


class TestStreams:
    def returned(self, partition: Partition[Any], work: DeferredSettlement, awaited: bool) -> None:
        """Make a call that leaves work running."""

        def inner(call: RunningCall) -> int:
            call.deferred = work
            return 1

        async def inner_async(call: RunningCall) -> int:
            return inner(call)

        call = running_call(Pipeline(partition))
        if awaited:
            assert asyncio.run(keyed_gate_async(partition, inner_async, False)(call)) == 1  # type: ignore[arg-type]
        else:
            assert keyed_gate(partition, inner, False)(call) == 1

    @pytest.mark.parametrize("awaited", [False, True])
    def test_it_is_in_use_until_the_stream_has_ended(self, awaited: bool) -> None:
        with virtual_time() as clock:
            partition = Partition(lambda: Bulkhead(1), idle=10.0)
            work = DeferredSettlement()
            own = partition.of(None)
            self.returned(partition, work, awaited)
            clock.advance(100.0)
            assert len(partition) == 1
            assert own.in_flight == 1
            work.end(OK)
            assert own.in_flight == 0
            assert len(partition) == 1
            clock.advance(10.0)
            assert len(partition) == 0

    @pytest.mark.parametrize("awaited", [False, True])
    def test_a_stream_that_is_dropped_counts_out(self, awaited: bool) -> None:
        partition = Partition(lambda: Bulkhead(1))
        self.returned(partition, DeferredSettlement(), awaited)
        gc.collect()

        assert (partition.of(None).in_flight, in_use(partition)) == (0, 0)


def test_a_coroutine_that_is_dropped_counts_out() -> None:
    partition = Partition(lambda: Bulkhead(1))
    pipeline = Pipeline(partition)

    async def main() -> None:
        coroutine = pipeline.acall(asyncio.sleep, 1e6)
        coroutine.send(None)
        assert (in_use(partition), partition.of(None).in_flight) == (1, 1)
        del coroutine
        gc.collect()

    with virtual_time():
        asyncio.run(main())

    assert (in_use(partition), partition.of(None).in_flight) == (0, 0)


class TestBudgets:
    @each_way
    def test_a_success_is_deposited_in_the_budget_of_its_key(self, make: Make) -> None:
        budgets = Partition(lambda: RetryBudget(ratio=1.0, capacity=5, initial=0))
        pipeline = Pipeline(Retry(nested=True), Retry(), budget=budgets)

        def work() -> str:
            assert in_use(budgets) == 1
            return ""

        make(pipeline, work)
        make(pipeline, work)
        assert budgets.of(None).tokens == 2.0
        assert (budgets.overflow.tokens, in_use(budgets)) == (0.0, 0)

    @each_way
    def test_a_failure_withdraws_from_it_and_is_no_deposit(self, make: Make) -> None:
        budgets = Partition(lambda: RetryBudget(ratio=1.0, capacity=5))
        pipeline = Pipeline(Retry(3, wait=backoff.none()), budget=budgets)
        with pytest.raises(ConnectionError):
            make(pipeline, down)

        assert budgets.of(None).tokens == 3.0
        assert (budgets.overflow.tokens, in_use(budgets)) == (5.0, 0)

    @each_way
    def test_an_error_of_a_budget_is_logged(
        self, make: Make, nothing_logged_yet: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(RetryBudget):
            def __init__(self) -> None:
                super().__init__()
                self.deposit = self.fail  # type: ignore[assignment]

            def fail(self) -> None:
                raise ValueError("broken")

        assert make(Pipeline(Retry(), budget=Partition(Broken)), str) == ""
        assert "deposit of a budget" in caplog.messages[0]


def test_both_drivers_see_a_member_that_is_being_evicted_and_take_another() -> None:
    """Whoever evicts it has cleared `live`, and the call has found it before."""
    for awaited in (False, True):
        partition = Partition(lambda: Bulkhead(1), idle=1.0)
        pipeline = Pipeline(partition)
        pipeline.call(int)
        (dead,) = partition._members
        dead.live = False

        def wait(member: Any = dead, partition: Any = partition) -> None:
            del partition._members.found[None]
            member.holds_place = False
            partition._members._places_taken -= 1

        partition._members.wait_for_eviction = wait  # type: ignore[method-assign]
        if awaited:
            assert asyncio.run(pipeline.acall(int)) == 0
        else:
            assert pipeline.call(int) == 0

        assert partition.of(None) is not dead.policy
        assert (dead.users, in_use(partition)) == ([], 0)


def test_a_gate_of_ones_own_can_be_made_for_each_key() -> None:
    class Quota(Gate[None]):
        """Admits two calls."""

        kind = "quota"

        def __init__(self) -> None:
            super().__init__()
            self.left = 2

        def admit(self, call: Any) -> None:
            if not self.left:
                raise RejectedError("no quota is left", policy=call.pipeline.name_of(self))
            self.left -= 1

    pipeline: Pipeline[Any] = Pipeline(Partition(Quota))
    for target in ("a", "b"):
        for _ in range(2):
            pipeline.bind(target=target).call(int)
        with pytest.raises(RejectedError) as caught:
            pipeline.bind(target=target).call(int)
        assert caught.value.policy == "quota"


def test_breakers_of_other_keys_stay_closed() -> None:
    pipeline: Pipeline[Any] = Pipeline(Partition(lambda: CircuitBreaker(consecutive_failures=1)))
    with pytest.raises(ConnectionError):
        pipeline.bind(target="bad").call(down)

    assert pipeline.bind(target="good").call(int) == 0
    with pytest.raises(RejectedError):
        pipeline.bind(target="bad").call(int)


@each_way
def test_results_are_given_to_the_policy_of_the_key(make: Make) -> None:
    partition = Partition(lambda: RateLimit(10, burst=10, actual=lambda result: result))

    with virtual_time():
        assert make(Pipeline(partition), lambda: 4) == 4

        assert sum(10 - one.available for one in partition.policies()) == 4


@each_way
def test_so_are_late_ones(make: Make) -> None:
    partition = Partition(lambda: RateLimit(1, per=1e6, burst=100, actual=lambda result: result))

    with virtual_time() as clock:

        def late() -> int:
            clock.advance(2)
            return 50

        assert make(Pipeline(partition, Timeout(1)), late) == 50

        assert sum(100 - one.available for one in partition.policies()) == pytest.approx(50, abs=0.1)


@each_way
def test_an_actual_that_is_set_later_is_asked(make: Make) -> None:
    partition = Partition(lambda: RateLimit(10, burst=10))
    pipeline = Pipeline(partition)

    with virtual_time():
        make(pipeline, lambda: 4)
        before = sum(10 - one.available for one in partition.policies())
        partition.update_policies(actual=lambda result: result)
        make(pipeline, lambda: 4)

        assert sum(10 - one.available for one in partition.policies()) == before + 4
