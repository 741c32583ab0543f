"""The gauges, which show the live state."""

from __future__ import annotations

import gc
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import pytest

from resilience import (
    AdaptiveLimit,
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    Cooldown,
    Failure,
    FailureKind,
    Hedge,
    Partition,
    Pipeline,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
    subscribe,
)
from resilience.events import CallEnded
from resilience.opentelemetry import instrument, uninstrument
from resilience.testing import virtual_time
from tests.opentelemetry.telemetry import Telemetry
from tests.support.functions import AppError, down

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def test_breakers_bulkheads_and_budgets(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](
        Retry(2, wait=backoff.none()), Bulkhead(3), AdaptiveLimit(initial=7), CircuitBreaker(), name="quotes"
    )
    with pytest.raises(ConnectionError):
        pipeline.call(down)
    pipeline.get(CircuitBreaker).isolate()

    with pipeline.get(Bulkhead):
        found = telemetry.metrics()

    def value(metric: str, policy: str, **labels: str) -> Any:
        return found[metric][frozenset({"pipeline": "quotes", "policy": policy, **labels}.items())]

    assert value("resilience_retry_budget_tokens", "budget") == pytest.approx(9.0)
    assert value("resilience_retry_budget_capacity", "budget") == pytest.approx(10.0)
    assert value("resilience_bulkhead_in_flight", "bulkhead") == 1
    assert value("resilience_bulkhead_limit", "bulkhead") == 3
    assert value("resilience_bulkhead_limit", "adaptive_limit") == 7
    assert value("resilience_bulkhead_queued", "bulkhead") == 0
    states = {state: value("resilience_circuit_breaker_state", "breaker", state=state) for state in STATES}
    assert states == {"closed": 0, "open": 0, "half_open": 0, "isolated": 1}


STATES = ("closed", "open", "half_open", "isolated")


def test_a_cooldown(telemetry: Telemetry) -> None:
    pause = Failure(FailureKind.OVERLOAD, retry_after=30.0)
    listed = Allowlist(AppError, when=lambda error: pause)
    pipeline = Pipeline[Any](Cooldown(), failures=listed, name="quota")

    def limited() -> None:
        raise AppError

    with virtual_time() as clock:
        clock.advance(60)
        with suppress(AppError):
            pipeline.call(limited)
        clock.advance(15)
        found = telemetry.metrics()

    key = frozenset({"pipeline": "quota", "policy": "cooldown"}.items())
    assert found["resilience_cooldown_active"][key] == 1
    assert found["resilience_cooldown_seconds_left"][key] == pytest.approx(15.0, abs=5)
    assert found["resilience_quota_exhausted_ratio"][key] == pytest.approx(0.25, abs=0.05)


def test_a_partition_is_added_up(telemetry: Telemetry) -> None:
    partition = Partition(lambda: CircuitBreaker(consecutive_failures=1), by=lambda call: call.args[0])
    budgets = Partition(RetryBudget, by=lambda call: call.args[0])
    pipeline = Pipeline[Any](Retry(1), partition, name="keyed", budget=budgets)

    def fail(key: str) -> None:
        raise ConnectionError

    for key in ("secret one", "secret two"):
        with suppress(ConnectionError):
            pipeline.call(fail, key)
    pipeline.call(str, "secret three")

    found = telemetry.metrics()
    labels = {"pipeline": "keyed", "policy": "breaker"}
    states = found["resilience_circuit_breaker_state"]
    assert states[frozenset({**labels, "state": "open"}.items())] == 2
    assert states[frozenset({**labels, "state": "closed"}.items())] == 2  # with that of all other keys
    tokens = found["resilience_retry_budget_tokens"]
    assert tokens[frozenset({"pipeline": "keyed", "policy": "budget"}.items())] == 40
    assert "secret" not in repr(found)


def test_the_slowest_attempts_as_a_share_of_their_timeout(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Timeout(10), Retry(2), Timeout(2), name="slow")
    with virtual_time() as clock:
        for seconds in [0.1] * 98 + [1.5]:
            pipeline.call(clock.advance, seconds)
        assert telemetry.value("resilience_attempt_timeout_ratio", pipeline="slow") is None
        for seconds in [0.1] * 50 + [1.5]:
            pipeline.call(clock.advance, seconds)
        ratio = telemetry.value("resilience_attempt_timeout_ratio", pipeline="slow")

    assert ratio == pytest.approx(0.75, rel=0.02)


def test_errors_of_listeners_repetitions_by_sdks_and_the_version(
    telemetry: Telemetry, nothing_logged_yet: None
) -> None:
    pipeline = Pipeline[Any](name="heard")
    for _ in range(2):
        pipeline.engine.info.count_foreign_retry()

    def broken(event: object) -> None:
        raise AppError

    before = telemetry.value("resilience_listener_errors", pipeline="heard") or 0
    with subscribe(broken, events=(CallEnded,)):
        pipeline.call(int)
        Pipeline[Any]().call(int)
    del pipeline
    gc.collect()  # counters stay

    assert telemetry.value("resilience_listener_errors", pipeline="heard") == before + 1
    assert telemetry.value("resilience_listener_errors", pipeline="") is None
    assert telemetry.value("resilience_foreign_retries", pipeline="heard") == 2
    assert telemetry.value("resilience_build_info", version=version("resilience-client")) == 1


def test_pipelines_of_one_name_are_added_up_and_those_that_are_gone_leave(telemetry: Telemetry) -> None:
    pipelines = [Pipeline[Any](Bulkhead(2), name="twice") for _ in range(2)]
    assert telemetry.value("resilience_bulkhead_limit", pipeline="twice", policy="bulkhead") == 4

    del pipelines[0]
    gc.collect()
    assert telemetry.value("resilience_bulkhead_limit", pipeline="twice", policy="bulkhead") == 2


def test_what_pipelines_of_one_name_share_counts_once_and_budgets_of_policies_apart(telemetry: Telemetry) -> None:
    bulkhead, budget = Bulkhead(2), RetryBudget(capacity=20)
    retry = Retry(budget=RetryBudget(capacity=5))
    pipelines = [Pipeline[Any](retry, Hedge(), bulkhead, name="sharing", budget=budget) for _ in range(2)]
    unnamed = Pipeline[Any](Bulkhead(7))

    found = telemetry.metrics()
    limits, capacities = found["resilience_bulkhead_limit"], found["resilience_retry_budget_capacity"]
    assert _of("sharing", limits) == {_key("sharing", "bulkhead"): 2}
    assert _of("sharing", capacities) == {_key("sharing", "retry"): 5, _key("sharing", "budget"): 20}
    assert _of("", limits) == {}
    assert len(pipelines) == 2
    assert unnamed.name == ""


def _of(pipeline: str, values: Any) -> Any:
    """Return the values of one pipeline; other tests have left some of theirs."""
    return {key: value for key, value in values.items() if ("pipeline", pipeline) in key}


def _key(pipeline: str, policy: str) -> Any:
    return frozenset({"pipeline": pipeline, "policy": policy}.items())


def test_policies_that_are_off_and_nested_ones(telemetry: Telemetry) -> None:
    inner = Pipeline[Any](Bulkhead(5), name="inside")
    outer = Pipeline[Any](Bulkhead(2, mode="off"), inner, name="outside")

    found = telemetry.metrics()["resilience_bulkhead_limit"]

    assert outer.name
    assert found[frozenset({"pipeline": "inside", "policy": "bulkhead"}.items())] == 5
    assert frozenset({"pipeline": "outside", "policy": "bulkhead"}.items()) not in found


def test_a_state_that_cannot_be_read_is_left_out(telemetry: Telemetry, nothing_logged_yet: None) -> None:
    class Broken(Bulkhead):
        def snapshot(self) -> dict[str, Any]:
            raise AppError

    pipeline = Pipeline[Any](Broken(3), Bulkhead(2, name="other"), name="half_broken")
    found = telemetry.metrics()["resilience_bulkhead_limit"]

    assert pipeline.name
    assert _of("half_broken", found) == {_key("half_broken", "other"): 2}


def test_there_are_none_after_uninstrument_and_again_after_instrument(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Bulkhead(2), name="again")
    uninstrument()
    pipeline.call(int)
    assert telemetry.metrics() == {}

    instrument(telemetry.tracer_provider, telemetry.meter_provider)
    pipeline.call(int)

    assert telemetry.value("resilience_bulkhead_limit", pipeline="again", policy="bulkhead") == 2
    assert telemetry.value("resilience_calls", pipeline="again", outcome="ok") == 1
