"""The gauges: what the policies of the live pipelines say when they are read."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from resilience import (
    AdaptiveLimit,
    Bulkhead,
    CircuitBreaker,
    Cooldown,
    Hedge,
    Partition,
    Pipeline,
    Retry,
    RetryBudget,
    Timeout,
    standard,
)
from resilience.prometheus._families import GAUGES
from resilience.prometheus._live import attempt_timeout
from resilience.testing import VirtualClock
from tests.prometheus.reading import Exposed, exposed

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines", "ignore:in pipeline")
STATE, LIMIT, IN_FLIGHT = (
    "resilience_circuit_breaker_state",
    "resilience_bulkhead_limit",
    "resilience_bulkhead_in_flight",
)
TOKENS, CAPACITY = "resilience_retry_budget_tokens", "resilience_retry_budget_capacity"


def states(found: Exposed, pipeline: str) -> dict[str, float]:
    """The number of breakers in each state."""
    return {state: value for (_, state), value in found.all(STATE, pipeline=pipeline).items()}


class TestPolicies:
    def test_breakers_have_one_state_at_a_time(self) -> None:
        breaker = CircuitBreaker()
        pipeline = Pipeline(breaker, name="state")
        with exposed() as found:
            assert states(found, "state") == {"closed": 1, "open": 0, "half_open": 0, "isolated": 0}
            breaker.isolate()
            assert states(found, "state") == {"closed": 0, "open": 0, "half_open": 0, "isolated": 1}
        assert pipeline.name == "state"

    @pytest.mark.parametrize("make", [Bulkhead, AdaptiveLimit])
    def test_bulkheads(self, make: Any) -> None:
        limit = make(3)
        pipeline = Pipeline(limit, name="limits")
        with exposed(pipelines=[pipeline]) as found, limit.calling(), limit.calling():
            kind = limit.name
            assert found.all(IN_FLIGHT, pipeline="limits") == {(kind,): 2}
            assert found.all(LIMIT, pipeline="limits") == {(kind,): 3}
            assert found.all("resilience_bulkhead_queued", pipeline="limits") == {(kind,): 0}
        assert pipeline.name == "limits"

    def test_cooldowns(self, virtual_clock: VirtualClock) -> None:
        cooldown = Cooldown()
        pipeline = Pipeline(cooldown, name="paused")
        cooldown._begin_pause(30.0)
        virtual_clock.advance(12.0)
        with exposed() as found:
            assert found.all("resilience_cooldown_active", pipeline="paused") == {("cooldown",): 1}
            assert found.all("resilience_cooldown_seconds_left", pipeline="paused") == {("cooldown",): 18}
            assert found.all("resilience_quota_exhausted_ratio", pipeline="paused") == {("cooldown",): 0.2}
            virtual_clock.advance(90.0)
            for name in ("cooldown_active", "cooldown_seconds_left", "quota_exhausted_ratio"):
                assert found.all(f"resilience_{name}", pipeline="paused") == {("cooldown",): 0}
        assert pipeline.name == "paused"


class TestBudgets:
    def test_that_of_the_pipeline_is_there_once(self) -> None:
        pipeline = Pipeline(Retry(), Hedge(0.1), budget=RetryBudget(capacity=5, initial=2), name="one_budget")
        with exposed() as found:
            assert found.all(TOKENS, pipeline="one_budget") == {("budget",): 2}
            assert found.all(CAPACITY, pipeline="one_budget") == {("budget",): 5}
        assert pipeline.name == "one_budget"

    def test_those_of_policies_have_their_names(self) -> None:
        own = RetryBudget(capacity=7)
        pipeline = Pipeline(Retry(budget=own), Retry(budget=None), Hedge(0.1, budget=RetryBudget()), name="own_budgets")
        with exposed() as found:
            assert found.all(TOKENS, pipeline="own_budgets") == {("retry",): 7, ("hedge",): 10}
        assert pipeline.name == "own_budgets"

    @pytest.mark.parametrize("policies", [(), (Bulkhead(3),)], ids=["none", "no loop"])
    def test_without_retries_there_is_none(self, policies: tuple[Any, ...]) -> None:
        pipeline = Pipeline(*policies, name="no_retries")
        with exposed() as found:
            assert found.all(TOKENS, pipeline="no_retries") == {}
        assert pipeline.name == "no_retries"

    def test_budgets_by_key_are_summed(self) -> None:
        budgets = Partition(lambda: RetryBudget(capacity=4), by=lambda call: call.args)
        pipeline = Pipeline(Retry(), budget=budgets, name="split_budget")
        with exposed() as found:
            for tenant in ("a", "b"):
                pipeline.call(str, tenant)

            assert found.all(CAPACITY, pipeline="split_budget") == {("budget",): 12}


class TestNames:
    def test_policies_of_pipelines_of_one_name_add_up(self) -> None:
        pipelines = [Pipeline(Bulkhead(3), CircuitBreaker(), name="twins") for _ in range(2)]
        with exposed() as found:
            assert found.all(LIMIT, pipeline="twins") == {("bulkhead",): 6}
            assert states(found, "twins")["closed"] == 2
        assert len(pipelines) == 2

    def test_a_policy_that_they_share_counts_once(self) -> None:
        shared = Bulkhead(3)
        pipelines = [Pipeline(shared, name="sharing"), Pipeline(shared, name="sharing"), Pipeline(shared, name="apart")]
        with exposed() as found:
            assert found.all(LIMIT, pipeline="sharing") == found.all(LIMIT, pipeline="apart") == {("bulkhead",): 3}
        assert len(pipelines) == 3

    @pytest.mark.parametrize("given", [True, False])
    def test_a_pipeline_that_is_collected_has_no_gauges_and_keeps_its_counters(self, given: bool) -> None:
        name = f"collected_{given}"
        pipeline = Pipeline(Bulkhead(3), name=name)
        with exposed(pipelines=[pipeline] if given else None) as found:
            pipeline.call(int)
            assert found.all(LIMIT, pipeline=name) == {("bulkhead",): 3}
            del pipeline
            gc.collect()

            assert found.all(LIMIT, pipeline=name) == {}
            assert found.value("resilience_calls_total", pipeline=name, outcome="ok") == 1

    def test_policies_that_are_off_have_none(self) -> None:
        policies = Bulkhead(3), CircuitBreaker(), Retry()
        pipeline = Pipeline(*policies, name="switched_off")
        with exposed() as found:
            assert found.all(LIMIT, pipeline="switched_off") == {("bulkhead",): 3}
            for one in policies:
                one.update(mode="off")
            pipeline.call(int)
            assert found.all(LIMIT, pipeline="switched_off") == {}
            assert found.all(STATE, pipeline="switched_off") == {}
            assert found.all("resilience_retry_budget_tokens", pipeline="switched_off") == {}

    def test_a_nested_pipeline_is_there_by_its_own_name(self) -> None:
        outer = Pipeline(Retry(), Pipeline(Bulkhead(3), name="nested_limit"), name="around_it")
        with exposed() as found:
            assert found.all(LIMIT, pipeline="nested_limit") == {("bulkhead",): 3}
            assert found.all(LIMIT, pipeline="around_it") == {}
        assert outer.name == "around_it"


class TestPartitions:
    def test_the_policies_are_summed(self) -> None:
        breakers = Partition(CircuitBreaker)
        pipeline = Pipeline(breakers, Partition(lambda: Bulkhead(2)), name="by_target")
        with exposed() as found:
            for target in ("a", "b", "c"):
                pipeline.bind(target=target).call(int)
            breakers.of("b").isolate()

            assert states(found, "by_target") == {"closed": 3, "open": 0, "half_open": 0, "isolated": 1}
            assert found.all(LIMIT, pipeline="by_target") == {("bulkhead",): 8}

    def test_with_key_labels_each_is_there(self) -> None:
        pipeline = Pipeline(Partition(lambda: Bulkhead(2)), Bulkhead(9, name="all"), name="keyed")
        with exposed(key_labels=True) as found:
            pipeline.bind(target="a").call(int)

            assert found.all(LIMIT, pipeline="keyed") == {
                ("a", "bulkhead"): 2,
                ("_overflow", "bulkhead"): 2,
                ("", "all"): 9,
            }

    def test_an_idle_one_is_evicted_before(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Partition(lambda: Bulkhead(2), idle=60.0), name="idle_keys")
        with exposed() as found:
            pipeline.bind(target="a").call(int)
            assert found.all(LIMIT, pipeline="idle_keys") == {("bulkhead",): 4}
            virtual_clock.advance(61.0)
            assert found.all(LIMIT, pipeline="idle_keys") == {("bulkhead",): 2}

    @pytest.mark.slow
    @pytest.mark.no_cover  # it takes three times as long with it
    def test_a_hundred_thousand_keys_make_a_hundred_values(self) -> None:
        breakers: Any = Partition(CircuitBreaker, by=lambda call: call.args[0], max_keys=100_000)
        pipeline = Pipeline(breakers, Partition(lambda: Bulkhead(2), by=lambda call: call.args[0]), name="very_many")
        with exposed(pipelines=[pipeline], key_labels=True) as found:
            for number in range(100_000):
                pipeline.call(str, number)
            for number in range(0, 100_000, 500):
                breakers.of(number).isolate()

            assert len(breakers) == 100_000
            samples = [sample for family in found.registry.collect() for sample in family.samples]
            by_metric: dict[str, set[str]] = {}
            for sample in samples:
                by_metric.setdefault(sample.name, set()).add(sample.labels.get("key", ""))
            assert len(by_metric[STATE]) == len(by_metric[LIMIT]) == 101
            assert max(map(len, by_metric.values())) == 101
            assert all("_overflow" in keys for keys in by_metric.values() if len(keys) > 1)
            isolated = [one for one in samples if one.name == STATE and one.labels["state"] == "isolated"]
            assert (sum(one.value for one in isolated), len(isolated)) == (200, 101)


class TestTimeouts:
    @pytest.mark.parametrize(
        ("pipeline", "seconds"),
        [
            (standard("of_standard", timeout=30.0, attempt_timeout=4.0), 4.0),
            (Pipeline(Timeout(5), Retry(), Timeout(3), Timeout(2)), 2.0),
            (Pipeline(Timeout(5), Retry(), Timeout(2, mode="off")), 5.0),
            (Pipeline(Timeout(5), Retry(), Timeout(2, mode="shadow")), 2.0),
            (Pipeline(Timeout(5), Retry(), Pipeline(Timeout(1), Bulkhead(3))), 1.0),
            (Pipeline(Timeout(5), Timeout(None, share=0.5)), 5.0),
            (Pipeline(Retry()), None),
        ],
        ids=range(7),
    )
    def test_that_of_an_attempt_is_the_innermost_one(self, pipeline: Pipeline[Any], seconds: float | None) -> None:
        assert attempt_timeout(pipeline.engine.info) == seconds


def test_every_gauge_is_exposed_for_the_recommended_pipeline(virtual_clock: VirtualClock) -> None:
    pipeline = standard("recommended")
    with exposed() as found:
        for _ in range(100):
            pipeline.call(virtual_clock.advance, 0.001)

        assert {family.name for family in GAUGES} <= found.names()
