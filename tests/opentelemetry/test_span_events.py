"""The events that spans get."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    CircuitBreaker,
    DeadlineExceededError,
    Hedge,
    Mode,
    Partition,
    Pipeline,
    RejectedError,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
)
from resilience._util import log_once
from resilience.events import Event, Rejected, RejectReason, RetryScheduled
from resilience.opentelemetry._span_events import EVENTS, attributes_of
from resilience.testing import virtual_time
from tests.opentelemetry.telemetry import Telemetry, events
from tests.support.functions import down, hang
from tests.support.policies import Instead

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def told(telemetry: Telemetry, span: str, event: str) -> dict[str, Any]:
    """Return the attributes of the only event with that name in the only span with that name."""
    (found,) = [attributes for name, attributes in events(telemetry.span(span)) if name == event]
    return found


def test_a_retry_and_a_give_up(telemetry: Telemetry) -> None:
    with virtual_time(), suppress(ConnectionError):
        Pipeline[Any](Retry(2, wait=backoff.fixed(1.5))).call(down)

    assert told(telemetry, "down", "resilience.retry") == {
        "resilience.policy": "retry",
        "resilience.attempt": 1,
        "resilience.wait": 1.5,
        "resilience.mode": "enforce",
        "error.type": "ConnectionError",
    }
    assert told(telemetry, "down", "resilience.give_up") == {
        "resilience.policy": "retry",
        "resilience.attempts": 2,
        "resilience.elapsed": 1.5,
        "resilience.reason": "attempts",
        "error.type": "ConnectionError",
    }


def test_a_retry_in_shadow_mode_says_so(telemetry: Telemetry) -> None:
    with suppress(ConnectionError):
        Pipeline[Any](Retry(2, wait=backoff.none(), mode=Mode.SHADOW)).call(down)

    assert told(telemetry, "down", "resilience.retry")["resilience.mode"] == "shadow"


def test_a_budget_that_is_empty(telemetry: Telemetry) -> None:
    with suppress(ConnectionError):
        Pipeline[Any](Retry(2), budget=RetryBudget(initial=0)).call(down)

    assert told(telemetry, "down", "resilience.give_up")["resilience.reason"] == "budget"


def test_a_rejection(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Bulkhead(1))
    with pipeline.get(Bulkhead), pytest.raises(RejectedError):
        pipeline.call(int)

    assert told(telemetry, "int", "resilience.rejection") == {
        "resilience.policy": "bulkhead",
        "resilience.reason": "full",
        "resilience.mode": "enforce",
        "error.type": "BulkheadFullError",
    }


def test_a_breaker_that_opens(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](CircuitBreaker(consecutive_failures=1))
    with pytest.raises(ConnectionError):
        pipeline.call(down)
    with pytest.raises(RejectedError):
        pipeline.call(int)

    change = told(telemetry, "down", "resilience.breaker_change")
    assert (change["resilience.previous"], change["resilience.state"]) == ("closed", "open")
    assert change["resilience.manual"] is False
    assert told(telemetry, "int", "resilience.rejection")["resilience.reason"] == "open"
    assert told(telemetry, "int", "resilience.rejection")["resilience.retry_after"] > 0


def test_a_breaker_that_is_changed_elsewhere_is_not_told(telemetry: Telemetry) -> None:
    other = Pipeline[Any](CircuitBreaker(), name="other")

    Pipeline[Any](name="calling").bind(operation="call").call(other.get(CircuitBreaker).isolate)

    assert events(telemetry.span("call")) == []


def test_a_breaker_that_a_call_isolates_and_closes_by_hand(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](CircuitBreaker(), name="by_hand")
    breaker = pipeline.get(CircuitBreaker)

    def switch() -> None:
        breaker.isolate()
        breaker.close()

    breaker.isolate()  # outside of a call: in no span, and counted
    breaker.close()
    pipeline.call(switch)

    changes = [told for name, told in events(telemetry.span("switch")) if name == "resilience.breaker_change"]
    assert [(told["resilience.state"], told["resilience.manual"]) for told in changes] == [
        ("isolated", True),
        ("closed", True),
    ]
    labels = {"pipeline": "by_hand", "policy": "breaker"}
    assert telemetry.value("resilience_circuit_breaker_transitions", to="isolated", **labels) == 2
    assert telemetry.value("resilience_circuit_breaker_transitions", to="closed", **labels) == 2


def test_what_a_call_has_left_running_belongs_to_the_call_around_it(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](CircuitBreaker(), name="quotes")

    async def later() -> None:
        await asyncio.sleep(0)
        pipeline.get(CircuitBreaker).isolate()

    async def start() -> asyncio.Task[None]:
        return asyncio.ensure_future(later())

    async def work() -> None:
        task = await pipeline.bind(operation="inner").acall(start)
        await task

    with virtual_time():
        asyncio.run(pipeline.bind(operation="outer").acall(work))

    assert events(telemetry.span("inner")) == []
    assert told(telemetry, "outer", "resilience.breaker_change")["resilience.manual"] is True


def test_a_timeout_of_the_outer_pipeline_that_the_inner_one_meets(telemetry: Telemetry) -> None:
    inner = Pipeline[Any](Retry(1), name="inner")
    outer = Pipeline[Any](Timeout(2), inner, name="outer")

    with virtual_time(), pytest.raises(DeadlineExceededError):
        asyncio.run(outer.acall(hang))

    nested, whole = telemetry.spans("hang")
    assert [name for name, _ in events(nested)] == ["resilience.give_up"]
    assert events(whole) == [
        (
            "resilience.timeout",
            {
                "resilience.policy": "timeout",
                "resilience.scope": "call",
                "resilience.timeout": 2.0,
                "resilience.late": False,
                "resilience.mode": "enforce",
            },
        )
    ]


def test_a_fallback(telemetry: Telemetry) -> None:
    Pipeline[Any](Instead("stale")).call(down)

    assert told(telemetry, "down", "resilience.fallback") == {
        "resilience.policy": "substitute",
        "resilience.mode": "enforce",
    }


def test_a_hedge_in_tasks(telemetry: Telemetry) -> None:
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(60)
        return "fine"

    pipeline = Pipeline[Any](Hedge(after=1.0)).bind(idempotent=True)
    with virtual_time():
        assert asyncio.run(pipeline.acall(work)) == "fine"

    assert told(telemetry, "work", "resilience.hedge")["resilience.attempt"] == 2
    assert told(telemetry, "work", "resilience.hedge_end")["resilience.result"] == "won"


def test_a_hedge_that_has_lost(telemetry: Telemetry) -> None:
    calls: list[int] = []

    async def work() -> int:
        number = len(calls)
        calls.append(number)
        await asyncio.sleep(3 if number else 2)
        return number

    pipeline = Pipeline[Any](Hedge(after=1.0), name="lost").bind(idempotent=True)
    with virtual_time():
        assert asyncio.run(pipeline.acall(work)) == 0

    assert calls == [0, 1]
    assert told(telemetry, "work", "resilience.hedge_end")["resilience.result"] == "lost"
    assert telemetry.value("resilience_attempts", pipeline="lost", outcome="abandoned") == 1


@pytest.mark.slow
def test_a_hedge_in_threads(telemetry: Telemetry) -> None:
    first = threading.Event()
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            first.wait(5)
        return "fine"

    try:
        assert Pipeline[Any](Hedge(after=0.01)).bind(idempotent=True).call(work) == "fine"
    finally:
        first.set()

    assert told(telemetry, "work", "resilience.hedge")["resilience.attempt"] == 2


def test_the_key_of_a_partition_is_not_told(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Partition(lambda: Bulkhead(1), by=lambda call: call.args[0]))

    def again(key: str) -> None:
        with suppress(RejectedError):
            pipeline.bind(operation="inner").call(str, key)

    pipeline.bind(operation="outer").call(again, "tenant-secret")

    rejection = told(telemetry, "inner", "resilience.rejection")
    assert rejection["resilience.policy"] == "bulkhead"
    assert "tenant-secret" not in repr([(span.attributes, events(span)) for span in telemetry.spans()])


def test_names_that_cannot_be_encoded_do_not_spoil_an_export(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_once.logger, "disabled", True)
    pipeline = Pipeline[Any](Retry(2, wait=backoff.none(), name="\ud800"), name="\udc80")
    with suppress(ConnectionError):
        pipeline.bind(operation="\udfff" * 10_000).call(down)

    (span,) = telemetry.spans()
    assert span.name == "?" * 200
    assert span.to_json(indent=None).encode()
    assert "\\ud" not in span.to_json()


def test_attributes_without_a_value_are_left_out() -> None:
    common: dict[str, Any] = {"pipeline": "", "policy": "", "operation": "", "target": None, "at": 0.0}
    event = Rejected(reason=None, retry_after=None, partition_key="secret", **common)

    assert attributes_of(event) == {"resilience.mode": "enforce"}
    assert attributes_of(Rejected(reason=RejectReason.FULL, retry_after=0.0, **common)) == {
        "resilience.mode": "enforce",
        "resilience.reason": "full",
        "resilience.retry_after": 0.0,
    }


def test_every_event_has_a_name_of_its_own() -> None:
    assert len(set(EVENTS.values())) == len(EVENTS)
    assert all(issubclass(kind, Event) for kind in EVENTS)
    assert EVENTS[RetryScheduled] == "resilience.retry"
