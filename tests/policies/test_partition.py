"""A Partition: settings, names, modes, updates, what it tells, and what it refuses."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

import resilience
from resilience import (
    NETWORK_ERRORS,
    AdaptiveLimit,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Partition,
    Pipeline,
    ResilienceWarning,
    Retry,
    RetryBudget,
    Timeout,
    UsageError,
    backoff,
)
from resilience.events import BreakerChanged, Rejected
from resilience.testing import Recorder, virtual_time
from tests.support.fork import in_child
from tests.support.functions import down
from tests.support.logs import lines_of
from tests.support.threads import PATIENCE, wait_until

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def fragile() -> CircuitBreaker:
    return CircuitBreaker(consecutive_failures=1)


def trip(pipeline: Pipeline[Any], target: str) -> None:
    with pytest.raises(ConnectionError):
        pipeline.bind(target=target).call(down)


class TestValidation:
    @pytest.mark.parametrize(
        ("arguments", "settings", "message"),
        [
            ((CircuitBreaker(),), {}, "factory must be a callable"),
            ((None,), {}, "factory must be a callable"),
            ((str,), {}, "factory must return a gate"),
            ((Retry,), {}, "factory must return a gate"),
            ((Timeout,), {}, "missing"),
            ((CircuitBreaker, 7), {}, 'by must be "target" or a callable'),
            ((CircuitBreaker, "host"), {}, 'by must be "target" or a callable'),
            ((CircuitBreaker, str), {}, 'by must be "target" or a callable'),
            ((CircuitBreaker,), {"max_keys": 2.5}, "max_keys must be an integer"),
            ((CircuitBreaker,), {"idle": "long"}, "idle must be a number"),
            ((CircuitBreaker,), {"name": 7}, "name must be a string"),
        ],
    )
    def test_a_wrong_type(self, arguments: Any, settings: Any, message: str) -> None:
        with pytest.raises(TypeError, match=re.escape(message)):
            Partition(*arguments, **settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_keys": 0}, "max_keys must be an integer >= 1"),
            ({"idle": 0.0}, "idle must be a number > 0"),
            ({"idle": float("nan")}, "idle must be a number > 0"),
            ({"mode": "quiet"}, "mode must be one of"),
        ],
    )
    def test_a_wrong_value(self, settings: Any, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            Partition(CircuitBreaker, **settings)

    def test_an_async_by(self) -> None:
        async def asked(call: object) -> str:
            return ""

        by: Any = asked

        with pytest.raises(TypeError, match="by must be a plain callable"):
            Partition(CircuitBreaker, by=by)

    def test_a_mode_of_its_policies(self) -> None:
        with pytest.raises(ValueError, match='give mode="shadow" to the Partition'):
            Partition(lambda: CircuitBreaker(mode="shadow"))

    def test_a_partition_of_budgets_is_no_policy(self) -> None:
        with pytest.raises(TypeError, match="a Partition of RetryBudgets is given as budget="):
            Pipeline(Partition(RetryBudget))

    @pytest.mark.parametrize("make", [lambda budget: Pipeline(budget=budget), lambda budget: Retry(budget=budget)])
    def test_a_partition_of_gates_is_no_budget(self, make: Callable[[Any], object]) -> None:
        with pytest.raises(TypeError, match="budget must be a RetryBudget, a Partition of RetryBudgets, or None"):
            make(Partition(CircuitBreaker))


@pytest.mark.usefixtures("nothing_logged_yet")
class TestFactories:
    @pytest.mark.parametrize("shared", [CircuitBreaker(), RetryBudget()])
    def test_one_that_returns_the_same_object_is_told_so(self, shared: Any, caplog: pytest.LogCaptureFixture) -> None:
        partition = Partition(lambda: shared)

        assert partition.of("a") is shared
        assert len(partition) == 0
        assert "factory of a Partition" in caplog.text
        assert "must return a new" in caplog.text

    def test_one_that_changes_its_mind_is_told_so(self, caplog: pytest.LogCaptureFixture) -> None:
        made = iter([CircuitBreaker(), Bulkhead(1)])
        partition: Partition[Any] = Partition(lambda: next(made))

        assert partition.of("a") is partition.overflow
        assert "must return a CircuitBreaker each time" in caplog.text


class TestNames:
    def test_it_is_called_like_its_policies(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(CircuitBreaker), Partition(lambda: Bulkhead(1)), CircuitBreaker())

        assert list(pipeline.snapshot()["policies"]) == ["breaker", "bulkhead", "breaker_2"]
        assert isinstance(pipeline["breaker"], Partition)

    def test_it_may_have_a_name_of_its_own_or_take_that_of_its_policies(self) -> None:
        for partition in (
            Partition(lambda: CircuitBreaker(name="door")),
            Partition(CircuitBreaker, name="door"),
            Partition(lambda: CircuitBreaker(name="other"), name="door"),
        ):
            pipeline: Pipeline[Any] = Pipeline(partition)
            assert pipeline["door"] is partition
            assert {partition.name, partition.of("a").name} == {"door"}

    def test_its_name_is_in_errors_with_the_target(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(fragile), name="quotes")
        trip(pipeline, "https://ada:secret@a.example/path?key=1")
        with pytest.raises(CircuitOpenError) as caught:
            pipeline.bind(target="https://ada:secret@a.example/path?key=1").call(int)

        assert (caught.value.policy, caught.value.pipeline) == ("breaker", "quotes")
        assert str(caught.value).startswith("breaker of quotes for https://a.example/path is open for")

    def test_a_long_target_is_cut_short(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(fragile))
        trip(pipeline, "x" * 500)
        with pytest.raises(CircuitOpenError, match=r"for x{100}\.\.\. is open"):
            pipeline.bind(target="x" * 500).call(int)

    def test_another_key_is_not_in_messages(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(lambda: Bulkhead(1), by=lambda call: "secret"), name="quotes")
        with pytest.raises(BulkheadFullError, match=r"^bulkhead of quotes is full"):
            pipeline.call(lambda: pipeline.call(int))

    def test_the_overflow_policy_says_what_it_is(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(fragile, max_keys=1), name="quotes")
        pipeline.bind(target="a").call(int)
        trip(pipeline, "b")
        with pytest.raises(CircuitOpenError, match="breaker of quotes, shared by all keys without an own one, is open"):
            pipeline.bind(target="c").call(int)

    def test_its_name_is_in_events_with_the_key(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(fragile, name="door"), name="quotes")
        with Recorder(pipeline) as recorder:
            trip(pipeline, "a.example")
            with pytest.raises(CircuitOpenError):
                pipeline.bind(target="a.example").call(int)

        (change,) = recorder.of(BreakerChanged)
        (rejected,) = recorder.of(Rejected)
        for event in (change, rejected):
            assert (event.pipeline, event.policy, event.target) == ("quotes", "door", "a.example")
            assert event.partition_key == "a.example"
        assert change.state == "open"

    def test_its_name_is_in_log_lines(self, caplog: pytest.LogCaptureFixture) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(fragile), name="quotes")
        with caplog.at_level(logging.WARNING, "resilience"):
            trip(pipeline, "a.example")

        (line,) = lines_of(caplog, "circuit breaker")
        assert line == "quotes/breaker: the circuit breaker is open since a call failed, target a.example"

    def test_changes_are_published_in_all_its_pipelines(self) -> None:
        partition = Partition(fragile)
        first: Pipeline[Any] = Pipeline(partition, name="first")
        second: Pipeline[Any] = Pipeline(Retry(1), partition, name="second")
        with Recorder() as recorder:
            trip(first, "a")
            partition.of("a").isolate()
            partition.overflow.isolate()

        found = [(event.pipeline, event.policy, event.state, event.target) for event in recorder.of(BreakerChanged)]
        assert found == [
            ("first", "breaker", "open", "a"),
            ("second", "breaker", "open", "a"),
            ("first", "breaker", "isolated", "a"),
            ("second", "breaker", "isolated", "a"),
            ("first", "breaker", "isolated", None),
            ("second", "breaker", "isolated", None),
        ]
        assert second.name == "second"


class TestLookups:
    def test_by_type(self) -> None:
        partition = Partition(CircuitBreaker)
        pipeline: Pipeline[Any] = Pipeline(Retry(), partition)

        assert pipeline.get(Partition) is partition
        with pytest.raises(LookupError, match=r"breaker is a Partition with one for each key: use its of\(key\)"):
            pipeline.get(CircuitBreaker)

    def test_budgets(self) -> None:
        budgets = Partition(RetryBudget)
        pipeline: Pipeline[Any] = Pipeline(Retry(), budget=budgets)

        assert pipeline.budget is budgets


class TestModes:
    def test_shadow_and_back(self) -> None:
        partition = Partition(fragile, mode="shadow")
        pipeline: Pipeline[Any] = Pipeline(partition)
        with Recorder(pipeline) as recorder:
            trip(pipeline, "a")
            assert pipeline.bind(target="a").call(int) == 0
        assert [event.mode for event in recorder.of(BreakerChanged)] == ["shadow"]
        assert [(event.mode, event.partition_key) for event in recorder.of(Rejected)] == [("shadow", "a")]

        partition.mode = "enforce"
        with pytest.raises(CircuitOpenError):
            pipeline.bind(target="a").call(int)
        partition.update(mode="off")
        assert pipeline.bind(target="a").call(int) == 0

    def test_blocks_have_its_mode(self) -> None:
        partition = Partition(lambda: Bulkhead(1), mode="shadow")
        with partition.calling("a"), partition.calling("a"):
            assert partition.of("a").in_flight == 1
        partition.mode = "enforce"
        with partition.calling("a"), pytest.raises(BulkheadFullError):
            partition.calling("a").__enter__()
        assert partition.of("a").in_flight == 0


class TestUpdates:
    def test_its_settings(self) -> None:
        partition = Partition(CircuitBreaker)
        partition.update(by=lambda call: call.operation, max_keys=5, idle=7)
        Pipeline(partition).bind(target="a").call(int)

        assert list(partition.snapshot()["policies"]) == ["int"]
        assert (partition.settings.max_keys, partition.settings.idle) == (5, 7.0)

    def test_a_refused_one_changes_nothing(self) -> None:
        partition = Partition(CircuitBreaker)
        with pytest.raises(ValueError, match="idle"):
            partition.update(max_keys=5, idle=-1)
        with pytest.raises(TypeError, match="partition has no setting factory"):
            partition.update(factory=Bulkhead)

        assert partition.settings.max_keys == 1024

    def test_those_of_all_its_policies_also_of_later_ones(self) -> None:
        partition = Partition(lambda: Bulkhead(1), max_keys=2)
        before = partition.of("a")
        partition.update_policies(limit=5)
        partition.update_policies(queue=2)

        assert [one.settings for one in (before, partition.of("b"), partition.overflow)] == [
            Bulkhead(5, queue=2).settings
        ] * 3

    @pytest.mark.parametrize(
        ("partition", "settings", "message"),
        [
            (Partition(lambda: Bulkhead(1)), {"limit": 0}, "limit"),
            (Partition(lambda: Bulkhead(1)), {"speed": 0}, "bulkhead has no setting speed"),
            (Partition(lambda: Bulkhead(1)), {"mode": "off"}, "the mode is that of the Partition"),
            (Partition(RetryBudget), {"ratio": 0.1}, "a RetryBudget has no settings to update"),
        ],
    )
    def test_a_refused_one_of_its_policies_changes_nothing(
        self, partition: Partition[Any], settings: Any, message: str
    ) -> None:
        before = [repr(one) for one in (partition.of("a"), partition.overflow)]
        with pytest.raises((TypeError, ValueError), match=message):
            partition.update_policies(**settings)

        assert [repr(one) for one in (partition.of("a"), partition.overflow)] == before
        assert partition.of("b") is not partition.overflow

    def test_one_that_some_of_its_policies_refuse_changes_none(self) -> None:
        limits = iter([5, 5, 15])
        partition = Partition(lambda: AdaptiveLimit(next(limits)))
        policies = [partition.overflow, partition.of("a"), partition.of("b")]
        before = [repr(one) for one in policies]
        with pytest.raises(ValueError, match="initial"):
            partition.update_policies(max_limit=10)

        assert [repr(one) for one in policies] == before

    def test_a_policy_that_is_made_meanwhile_has_the_new_settings_and_mode(self) -> None:
        partition = Partition(lambda: Bulkhead(1))
        adopt = partition._adopt

        def adopt_and_change(policy: Bulkhead, key: Any) -> None:
            adopt(policy, key)
            partition.update_policies(limit=7)
            partition.update(mode="shadow")

        vars(partition)["_adopt"] = adopt_and_change

        made = partition.of("a")

        assert (made.limit, made.mode) == (7, "shadow")

    def test_of_one_policy(self) -> None:
        partition = Partition(lambda: Bulkhead(1))
        partition.of("a").update(limit=9)

        assert [one.limit for one in partition.policies()] == [1, 9]


def test_it_describes_itself_and_its_policies() -> None:
    by: Any = len
    partition = Partition(lambda: Bulkhead(3), by=by, max_keys=7)
    description = Pipeline(partition, budget=Partition(RetryBudget)).describe()

    assert description["policies"] == [
        {
            "kind": "partition",
            "name": "bulkhead",
            "mode": "enforce",
            "settings": {"by": repr(len), "max_keys": 7, "idle": 600.0},
            "policy": {
                "kind": "bulkhead",
                "name": "bulkhead",
                "mode": "enforce",
                "settings": {"limit": 3, "queue": 0, "max_wait": 1.0},
            },
        }
    ]
    assert description["budget"]["policy"] == {"ratio": 0.2, "capacity": 10.0}
    assert repr(partition) == "Partition(lambda: Bulkhead(limit=3), by=<built-in function len>, max_keys=7)"
    assert repr(Partition(RetryBudget)) == "Partition(lambda: RetryBudget(ratio=0.2, capacity=10))"


def test_a_pipeline_resets_and_shows_all() -> None:
    pipeline: Pipeline[Any] = Pipeline(
        Retry(2, wait=backoff.none()), Partition(fragile), budget=Partition(lambda: RetryBudget(capacity=1))
    )
    trip(pipeline, "a")
    assert pipeline.snapshot()["budget"]["policies"]["a"]["tokens"] == 1.0  # the second attempt was rejected
    assert pipeline["breaker"].of("a").state == "open"
    pipeline.reset()

    assert pipeline["breaker"].of("a").state == "closed"
    assert pipeline.snapshot()["policies"]["breaker"]["policies"]["a"]["opens"] == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(copied: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="a Partition cannot be copied or pickled"):
        copied(Partition(CircuitBreaker))


class TestWarnings:
    def test_a_breaker_outside_a_retry(self) -> None:
        with pytest.warns(ResilienceWarning, match="breaker is outside retry"):
            Pipeline(Partition(CircuitBreaker), Retry())

    def test_slow_calls_that_a_timeout_ends(self) -> None:
        with pytest.warns(ResilienceWarning, match="slow_after=2 s"):
            Pipeline(Partition(lambda: CircuitBreaker(slow_after=2.0)), Timeout(1.0))

    def test_one_partition_twice(self) -> None:
        partition = Partition(lambda: Bulkhead(2))
        with pytest.warns(ResilienceWarning, match="contained twice"):
            Pipeline(partition, Retry(), partition)

    def test_its_own_failures_are_used_for_results(self) -> None:
        """A breaker with `on=` that lists results sees returned values as failures, in a Partition, too."""
        bad = resilience.Allowlist.of_results(lambda result: result == "bad") | NETWORK_ERRORS
        partition = Partition(lambda: CircuitBreaker(consecutive_failures=1, on=bad))
        pipeline: Pipeline[Any] = Pipeline(partition)

        assert pipeline.call(lambda: "bad") == "bad"
        assert partition.of(None).state == "open"

    def test_the_shortest_expectation_is_that_of_its_policies(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Partition(lambda: CircuitBreaker(slow_after=2.0)))

        assert pipeline.composer.shortest_timeout() == 2.0


class TestBlocks:
    def test_a_block_is_guarded_by_the_policy_of_a_key(self) -> None:
        partition = Partition(lambda: Bulkhead(1))
        with partition.calling("a") as gate:
            assert gate is partition.of("a")
            with partition.calling("b"), pytest.raises(BulkheadFullError, match="bulkhead for a is full"):
                partition.calling("a").__enter__()
        assert [one.in_flight for one in partition.policies()] == [0, 0, 0]
        assert [len(one.users) for one in partition._members] == [0, 0]

    def test_a_block_is_a_use(self) -> None:
        with virtual_time() as clock:
            partition = Partition(lambda: Bulkhead(1))
            with partition.calling("a"):
                clock.advance(1e6)
                assert len(partition) == 1
            clock.advance(600.0)
            assert len(partition) == 0

    def test_a_block_is_entered_once(self) -> None:
        partition = Partition(lambda: Bulkhead(1))
        block = partition.calling("a")
        with block:
            with pytest.raises(UsageError, match="was entered before"):
                block.__enter__()
            assert partition.of("a").in_flight == 1
            assert [len(one.users) for one in partition._members] == [1]
        assert [len(one.users) for one in partition._members] == [0]

    def test_a_failure_in_a_block_opens_the_breaker_of_its_key(self) -> None:
        partition = Partition(fragile, name="door")
        with Recorder() as recorder, pytest.raises(ConnectionError), partition.calling("a"):
            raise ConnectionError

        assert (partition.of("a").state, partition.of("b").state) == ("open", "closed")
        assert [(event.policy, event.partition_key) for event in recorder.of(BreakerChanged)] == [("door", "a")]

    def test_an_awaited_block_waits_in_the_queue_of_its_key(self) -> None:
        partition = Partition(lambda: Bulkhead(1, queue=1, max_wait=5.0))
        order: list[str] = []

        async def work(name: str) -> None:
            async with partition.calling("a"):
                order.append(name)
                await asyncio.sleep(1)
                order.append(name)

        async def main() -> None:
            await asyncio.gather(work("first"), work("second"))
            with pytest.raises(BulkheadFullError):
                await asyncio.gather(*(work("more") for _ in range(3)))

        with virtual_time():
            asyncio.run(main())

        assert order[:4] == ["first", "first", "second", "second"]
        assert [len(one.users) for one in partition._members] == [0]

    def test_budgets_guard_no_blocks(self) -> None:
        with pytest.raises(TypeError, match="a Partition of retry budgets guards no blocks"):
            Partition(RetryBudget).calling("a")


class TestBudgets:
    def test_one_key_cannot_use_up_the_budget_of_another(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(
            Retry(3, wait=backoff.none()), budget=Partition(lambda: RetryBudget(capacity=2))
        )
        for _ in range(5):
            trip(pipeline, "bad")
        budgets = pipeline.budget
        assert isinstance(budgets, Partition)

        assert {key: one["tokens"] for key, one in budgets.snapshot()["policies"].items()} == {"bad": 0.0}
        trip(pipeline, "good")
        assert budgets.of("good").tokens == 0.0

    def test_a_retry_may_have_budgets_of_its_own(self) -> None:
        budgets = Partition(lambda: RetryBudget(capacity=2), by=lambda call: call.operation)
        retry = Retry(3, wait=backoff.none(), budget=budgets)
        pipeline: Pipeline[Any] = Pipeline(retry)
        trip(pipeline, "a")
        assert retry.snapshot()["budget"]["policies"] == {"down": {"tokens": 0.0, "capacity": 2.0}}
        retry.reset()
        assert budgets.of("down").tokens == 2.0
        assert isinstance(pipeline.budget, RetryBudget)
        assert pipeline.budget.tokens == 10.0

    def test_an_answer_is_a_deposit(self) -> None:
        listed = resilience.Allowlist(ConnectionError, answers=(KeyError,))
        budgets = Partition(lambda: RetryBudget(ratio=1.0, initial=0))
        pipeline: Pipeline[Any] = Pipeline(Retry(budget=budgets), failures=listed)
        with pytest.raises(KeyError):
            pipeline.call(dict[str, int]().__getitem__, "x")

        assert budgets.of(None).tokens == 1.0

    def test_a_retry_that_a_breaker_rejects_is_refunded_to_the_budget_of_its_key(self) -> None:
        budgets = Partition(RetryBudget)
        pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), Partition(fragile), budget=budgets)
        trip(pipeline, "a")

        assert budgets.of("a").tokens == 10.0

    def test_a_budget_is_in_use_while_a_retry_waits(self) -> None:
        budgets = Partition(lambda: RetryBudget(capacity=3), idle=10.0)
        pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.fixed(1000.0)), budget=budgets)
        seen: list[int] = []

        def work() -> None:
            seen.append(len(budgets))
            down()

        with virtual_time(), pytest.raises(ConnectionError):
            pipeline.call(work)

        assert seen == [1, 1]
        assert budgets.of(None).tokens == 2.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_in_a_forked_child_no_policy_is_in_use() -> None:
    partition = Partition(lambda: Bulkhead(1), max_keys=1)
    budgets = Partition(RetryBudget)
    pipeline: Pipeline[Any] = Pipeline(Retry(), partition, budget=budgets)
    may_go = threading.Event()
    thread = threading.Thread(target=pipeline.bind(target="a").call, args=(may_go.wait, PATIENCE))
    thread.start()
    wait_until(lambda: partition.of("a").in_flight == 1)

    def child() -> str:
        users = [len(one.users) for keyed in (partition, budgets) for one in keyed._members]
        with virtual_time() as clock:
            clock.advance(1e9)
            partition.of("b")
            clock.advance(1e9)
            partition.of("b")
        return f"{users} {pipeline.bind(target='a').call(int)} {list(partition.snapshot()['policies'])}"

    def forking() -> str:
        return in_child(child)

    said = pipeline.bind(target="c").call(forking)
    may_go.set()
    thread.join(PATIENCE)

    assert said.startswith("[0, 0, 0] 0 ")
    assert [len(one.users) for one in partition._members] == [0]
    assert partition.of("a").in_flight == 0
