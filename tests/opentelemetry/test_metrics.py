"""The counters and histograms."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    DeadlineExceededError,
    Hedge,
    Mode,
    Pipeline,
    RateLimit,
    RejectedError,
    Retry,
    Timeout,
    backoff,
)
from resilience._util.label_values import LONGEST, OVERFLOW
from resilience.events._delivery import listener_errors
from resilience.opentelemetry import instrument, uninstrument
from resilience.testing import virtual_time
from tests.opentelemetry.telemetry import Telemetry
from tests.support.functions import Failing, down, hang, raising
from tests.support.policies import Closed, Instead, Streaming
from tests.support.ways import Make, each_way

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")
NOW = backoff.none()


@each_way
def test_calls_attempts_and_retries(telemetry: Telemetry, make: Make) -> None:
    pipeline = Pipeline[Any](Retry(3, wait=backoff.fixed(2)), name="quotes")

    with virtual_time():
        make(pipeline, int)
        make(pipeline, Failing(2))
        with pytest.raises(ConnectionError):
            make(pipeline, Failing())

    found = telemetry.metrics()
    quotes = frozenset({("pipeline", "quotes")})
    assert found["resilience_calls"] == {quotes | {("outcome", "ok")}: 2, quotes | {("outcome", "failed")}: 1}
    assert found["resilience_attempts"] == {quotes | {("outcome", "ok")}: 2, quotes | {("outcome", "failed")}: 5}
    assert found["resilience_call_retries"] == {quotes: (2, 4)}
    assert found["resilience_call_duration_seconds"] == {quotes: (3, pytest.approx(8.0))}
    assert found["resilience_attempt_duration_seconds"] == {quotes: (7, pytest.approx(0.0))}
    assert found["resilience_retry_wait_seconds"] == {quotes: pytest.approx(8.0)}
    assert found["resilience_retries_refused"] == {quotes | {("reason", "attempts")}: 1}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError(), "error"),
        (ConnectionError(), "failed"),
        (DeadlineExceededError(), "timed_out"),
        (LookupError(), "ok"),
        (KeyboardInterrupt(), "abandoned"),
    ],
)
def test_the_outcomes(telemetry: Telemetry, error: BaseException, outcome: str) -> None:
    pipeline = Pipeline[Any](failures=Allowlist(ConnectionError, answers=(LookupError,)), name="quotes")
    with pytest.raises(type(error)):
        pipeline.call(raising(error))

    assert telemetry.value("resilience_calls", pipeline="quotes", outcome=outcome) == 1
    assert telemetry.value("resilience_attempts", pipeline="quotes", outcome=outcome) == 1


def test_rejections_and_fallbacks(telemetry: Telemetry) -> None:
    with pytest.raises(RejectedError):
        Pipeline[Any](Closed(), name="closed").call(int)
    Pipeline[Any](Closed(mode=Mode.SHADOW), name="shadow").call(int)
    Pipeline[Any](Instead(1), name="fallback").call(down)

    shut = {"policy": "closed", "reason": "isolated"}
    assert telemetry.value("resilience_calls", pipeline="closed", outcome="rejected") == 1
    assert telemetry.value("resilience_rejections", pipeline="closed", mode="enforce", **shut) == 1
    assert telemetry.value("resilience_calls", pipeline="shadow", outcome="ok") == 1
    assert telemetry.value("resilience_rejections", pipeline="shadow", mode="shadow", **shut) == 1
    assert telemetry.value("resilience_calls", pipeline="fallback", outcome="fallback") == 1
    assert telemetry.value("resilience_fallbacks", pipeline="fallback") == 1


def test_transitions_deadlines_and_hedges(telemetry: Telemetry) -> None:
    broken = Pipeline[Any](CircuitBreaker(consecutive_failures=1), name="broken")
    slow = Pipeline[Any](Timeout(1), name="slow")
    hedged = Pipeline[Any](Hedge(after=1.0), Timeout(5), name="hedged").bind(idempotent=True)
    calls: list[int] = []

    async def work() -> None:
        calls.append(1)
        await asyncio.sleep(3 if len(calls) == 1 else 0)

    with virtual_time():
        with pytest.raises(ConnectionError):
            broken.call(down)
        with pytest.raises(DeadlineExceededError):
            asyncio.run(slow.acall(hang))
        asyncio.run(hedged.acall(work))

    assert (
        telemetry.value("resilience_circuit_breaker_transitions", pipeline="broken", policy="breaker", to="open") == 1
    )
    assert telemetry.value("resilience_deadline_exceeded", pipeline="slow", scope="call") == 1
    assert telemetry.value("resilience_hedges", pipeline="hedged", result="won") == 1


def test_a_breaker_in_shadow_mode_changes_its_state_all_the_same(telemetry: Telemetry) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, mode=Mode.SHADOW)
    with suppress(ConnectionError):
        Pipeline[Any](breaker, name="shadow").call(down)

    labels = {"pipeline": "shadow", "policy": "breaker"}
    assert telemetry.value("resilience_circuit_breaker_transitions", **labels, to="open") == 1


def test_a_rejection_without_a_reason(telemetry: Telemetry) -> None:
    class Nameless(Closed):
        def admit(self, call: Any) -> None:
            raise RejectedError("no reason")

    with suppress(RejectedError):
        Pipeline[Any](Nameless(), name="shut").call(int)

    labels = {"pipeline": "shut", "policy": "closed", "mode": "enforce"}
    assert telemetry.value("resilience_rejections", **labels, reason="other") == 1


def test_what_a_policy_in_shadow_mode_would_have_done_is_not_counted(telemetry: Telemetry) -> None:
    with suppress(ConnectionError):
        Pipeline[Any](Retry(wait=NOW, mode=Mode.SHADOW), name="shadow").call(down)

    assert telemetry.value("resilience_retry_wait_seconds", pipeline="shadow") is None


def test_waits_for_a_rate_limit_are_counted_and_those_for_a_bulkhead_are_not(telemetry: Telemetry) -> None:
    paced = Pipeline[Any](RateLimit(1, per=2.0, burst=1), name="paced")
    queued = Pipeline[Any](Bulkhead(1, queue=1, max_wait=10.0), name="queued")

    async def main() -> None:
        await asyncio.gather(*(queued.acall(asyncio.sleep, 1) for _ in range(2)))

    with virtual_time():
        paced.call(int)
        paced.call(int)
        asyncio.run(main())

    assert telemetry.value("resilience_rate_limit_wait_seconds", pipeline="paced", policy="rate_limit") == (
        pytest.approx(2.0)
    )
    assert telemetry.value("resilience_rate_limit_wait_seconds", pipeline="queued", policy="bulkhead") is None


def test_a_pipeline_that_is_named_later(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any]()
    pipeline.call(int)

    @pipeline
    def fetch() -> None:
        """Do nothing."""

    fetch()

    assert list(telemetry.metrics()["resilience_calls"].items()) == [
        (frozenset({"pipeline": pipeline.name, "outcome": "ok"}.items()), 1)
    ]


def test_a_stream_counts_once_with_its_own_end(telemetry: Telemetry) -> None:
    gate = Streaming()
    pipeline = Pipeline[Any](gate, name="streams")
    pipeline.call(int)
    pipeline.call(int)
    assert telemetry.value("resilience_calls", pipeline="streams", outcome="ok") is None

    gate.left.clear()
    gc.collect()
    Pipeline[Any](name="next").call(int)  # what a finalizer has left to it

    assert telemetry.value("resilience_calls", pipeline="streams", outcome="abandoned") == 2


def test_the_counts_of_threads_are_exact(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Retry(2, wait=NOW), budget=None, name="busy")

    def many() -> None:
        for _ in range(200):
            pipeline.call(Failing(1))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert telemetry.value("resilience_calls", pipeline="busy", outcome="ok") == 800
    assert telemetry.value("resilience_attempts", pipeline="busy", outcome="failed") == 800
    assert telemetry.value("resilience_call_retries", pipeline="busy") == (800, 800)


def test_an_instrument_that_raises_changes_no_outcome_and_is_counted(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, nothing_logged_yet: None
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise OSError("exporter")

    for name in ("Counter.add", "Histogram.record"):
        monkeypatch.setattr(f"opentelemetry.sdk.metrics._internal.instrument.{name}", broken)

    before = listener_errors.totals().get("fragile", 0)
    assert Pipeline[Any](Retry(2, wait=NOW), name="fragile").call(Failing(1)) == "fine"
    assert asyncio.run(Pipeline[Any](Retry(2, wait=NOW), name="fragile").acall(int)) == 0

    assert listener_errors.totals()["fragile"] >= before + 4


def test_no_pipeline_is_kept_alive(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Retry(2, wait=NOW), Bulkhead(3), name="short")
    pipeline.call(Failing(1))
    kept = weakref.ref(pipeline.engine.info)
    del pipeline
    gc.collect()

    assert kept() is None
    assert telemetry.value("resilience_calls", pipeline="short", outcome="ok") == 1


def test_names_are_bounded_in_number_and_length(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilience.opentelemetry._metrics.MOST_NAMES", 2)
    uninstrument()
    provider = MeterProvider([reader := InMemoryMetricReader()], shutdown_on_exit=False)
    instrument(telemetry.tracer_provider, provider)
    for name in ("first", "cut" * 4000, "third", "\ud800"):
        Pipeline[Any](name=name).call(int)

    data: Any = reader.get_metrics_data()
    provider.shutdown()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    (calls,) = [one.data.data_points for one in metrics if one.name == "resilience_calls"]
    assert {point.attributes["pipeline"]: point.value for point in calls} == {
        "first": 1,
        ("cut" * 4000)[:LONGEST]: 1,
        OVERFLOW: 2,
    }


def test_calls_in_a_signal_handler_that_interrupts_a_write(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, handled, lock = Pipeline[Any](Retry(1), name="signalled"), list[int](), threading.Lock()
    add = Counter.add

    def interrupted(*args: Any, **more: Any) -> None:
        assert lock.acquire(blocking=False), "the lock of the SDK is not reentrant: this would block for ever"
        try:
            if not handled:
                handled.append(1)
                with suppress(ConnectionError):
                    pipeline.call(down)  # as the handler
                pipeline.call(int)  # finds what was deferred
            add(*args, **more)
        finally:
            lock.release()

    monkeypatch.setattr(Counter, "add", interrupted)
    pipeline.call(int)

    assert telemetry.value("resilience_calls", pipeline="signalled", outcome="ok") == 2
    assert telemetry.value("resilience_calls", pipeline="signalled", outcome="failed") == 1
    assert telemetry.value("resilience_retries_refused", pipeline="signalled", reason="attempts") == 1
    assert len(telemetry.spans()) == 3
