"""The health of pipelines for a readiness endpoint: what hinders calls, and what fails readiness."""

from __future__ import annotations

import json
from typing import Any

import pytest

import resilience
from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    Cooldown,
    Failure,
    FailureKind,
    Partition,
    Pipeline,
    Retry,
    RetryBudget,
)
from resilience._util import log_once
from resilience.testing import VirtualClock


def failing(*args: object) -> None:
    raise ConnectionError


def opened(**kwargs: Any) -> CircuitBreaker:
    """Return a breaker that one failure has opened."""
    breaker = CircuitBreaker(consecutive_failures=1, **kwargs)
    with pytest.raises(ConnectionError):
        breaker.call(failing)
    return breaker


def test_without_a_problem_all_is_ok(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Retry(), Cooldown(), Bulkhead(1), CircuitBreaker(), name="fine")

    assert pipeline.health() == {"status": "ok", "problems": []}
    found = resilience.health()
    assert (found["ready"], found["pipelines"]["fine"]) == (True, pipeline.health())


def test_an_open_breaker_degrades(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(opened(open_for=1.0, max_open_for=1.0), name="quotes")
    (problem,) = pipeline.health()["problems"]

    assert (problem["policy"], problem["problem"]) == ("breaker", "open")
    assert 0.8 <= problem["retry_after"] <= 1.0
    assert pipeline.health()["status"] == "degraded"
    found = resilience.health()
    assert (found["ready"], found["status"]) == (True, "degraded")


def test_it_fails_readiness_where_it_is_named_critical(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(opened(), name="payments")

    found = resilience.health(critical=["payments"])
    assert (found["ready"], found["status"]) == (False, "unavailable")
    assert resilience.health(critical=["other"])["ready"] is True
    virtual_clock.advance(60)
    assert pipeline.health()["status"] == "ok"  # half-open: it admits calls
    assert resilience.health(critical=["payments"])["ready"] is True


def test_an_isolated_breaker_and_a_drain_fail_readiness_too(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker, name="isolated")
    breaker.isolate()
    assert pipeline.health()["problems"] == [{"policy": "breaker", "problem": "isolated", "retry_after": None}]
    assert not resilience.health(critical=["isolated"])["ready"]
    breaker.close()
    pipeline.drain(0)

    assert pipeline.health()["problems"] == [{"policy": "", "problem": "draining"}]
    assert not resilience.health(critical=["isolated"])["ready"]


def test_a_bulkhead_is_saturated_when_its_queue_is_full_too(virtual_clock: VirtualClock) -> None:
    bulkhead = Bulkhead(1)
    pipeline = Pipeline(bulkhead, name="full")
    with bulkhead:
        assert pipeline.health()["problems"] == [
            {"policy": "bulkhead", "problem": "saturated", "in_flight": 1, "limit": 1, "queued": 0}
        ]
        assert resilience.health(critical=["full"])["ready"] is True
        bulkhead.update(queue=1)
        assert pipeline.health()["problems"] == []


def test_an_empty_budget_is_a_problem(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Retry(), budget=RetryBudget(initial=0.5), name="poor")

    assert pipeline.health()["problems"] == [{"policy": "budget", "problem": "budget_empty", "tokens": 0.5}]
    assert Pipeline(Retry(), budget=None).health()["problems"] == []


def test_a_cooldown_is_a_problem(virtual_clock: VirtualClock) -> None:
    told = Allowlist(ConnectionError, when=lambda error: Failure(FailureKind.OVERLOAD, 5.0))
    pipeline = Pipeline(Cooldown(), failures=told, name="told")
    with pytest.raises(ConnectionError):
        pipeline.call(failing)

    assert pipeline.health()["problems"] == [{"policy": "cooldown", "problem": "cooling_down", "seconds_left": 5.0}]


def test_of_a_partition_each_problem_is_listed_once_with_some_keys(virtual_clock: VirtualClock) -> None:
    breakers = Partition(lambda: CircuitBreaker(consecutive_failures=1), by=lambda call: call.args[0])
    pipeline = Pipeline(breakers, name="hosts")
    for number in range(12):
        with pytest.raises(ConnectionError):
            pipeline.call(failing, f"https://user:secret@host-{number:02}/?token=secret")
    pipeline.call(lambda key: None, "fine")
    (problem,) = pipeline.health()["problems"]

    assert (problem["policy"], problem["problem"], problem["count"]) == ("breaker", "open", 12)
    assert problem["keys"][0] == "https://host-00/"
    assert len(problem["keys"]) == 10
    assert "secret" not in json.dumps(resilience.health())


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_policies_that_hinder_no_call_are_left_out(virtual_clock: VirtualClock, mode: Any) -> None:
    breaker = opened()
    pipeline = Pipeline(breaker, name="lenient")
    assert pipeline.health()["problems"] != []
    breaker.mode = mode
    assert pipeline.health()["problems"] == []


def test_policies_of_nested_pipelines_count(virtual_clock: VirtualClock) -> None:
    assert Pipeline(Pipeline(opened(), name="inner"), name="outer").health()["status"] == "degraded"


def test_a_critical_name_without_a_pipeline_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    log_once.forget()

    for _ in range(3):
        assert resilience.health(critical=["paymnets"])["ready"] is True
    assert caplog.text.count("paymnets") == 1


@pytest.mark.parametrize("critical", ["payments", [1], [None]])
def test_critical_takes_names(critical: Any) -> None:
    with pytest.raises(TypeError, match="critical must"):
        resilience.health(critical=critical)


def test_it_is_plain_data(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(opened(), Bulkhead(1), name="data")

    assert json.loads(json.dumps(resilience.health()))["pipelines"]["data"]["status"] == "degraded"
    assert pipeline.health()["status"] == "degraded"
