"""The counters that events count: each event once, under the right labels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import (
    Bulkhead,
    Call,
    CircuitBreaker,
    Cooldown,
    DeadlineExceededError,
    Fallback,
    Gate,
    Hedge,
    Partition,
    Pipeline,
    RateLimit,
    RateLimitedError,
    RejectedError,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
    deadline_after,
    subscribe,
)
from resilience._util.locks import thread_state
from resilience.events import Event, FallbackUsed
from resilience.prometheus._counts import OwnCounts
from resilience.prometheus._families import FALLBACKS
from resilience.testing import VirtualClock, seeded
from tests.prometheus.reading import exposed
from tests.support.functions import Failing, down, hang
from tests.support.threads import in_threads

pytestmark = [
    pytest.mark.usefixtures("nothing_logged_yet"),
    pytest.mark.filterwarnings("ignore:there are two pipelines"),
]
REJECTIONS = "resilience_rejections_total"


def fail(pipeline: Pipeline[Any], times: int = 1) -> None:
    for _ in range(times):
        with suppress(ConnectionError, RejectedError):
            pipeline.call(down)


@pytest.mark.usefixtures("virtual_clock")
class TestRetries:
    def test_waits_and_the_reasons_to_give_up(self) -> None:
        pipeline = Pipeline(Retry(3, wait=backoff.fixed(2)), name="waits", budget=RetryBudget(initial=3))
        with exposed() as found:
            assert found.value("resilience_retry_wait_seconds_total", pipeline="waits") == 0
            fail(pipeline, 2)

            assert found.value("resilience_retry_wait_seconds_total", pipeline="waits") == 6
            assert found.all("resilience_retries_refused_total", pipeline="waits") == {("attempts",): 1, ("budget",): 1}
            assert found.all("resilience_retry_budget_tokens", pipeline="waits") == {("budget",): 0}

    def test_in_shadow_mode_nobody_waits(self) -> None:
        pipeline = Pipeline(Retry(3, wait=backoff.fixed(2), mode="shadow"), name="shadow_waits")
        with exposed() as found:
            fail(pipeline)

            assert found.value("resilience_retry_wait_seconds_total", pipeline="shadow_waits") == 0


class TestRejections:
    def test_the_policy_the_reason_and_the_mode(self) -> None:
        bulkhead, breaker = Bulkhead(1, name="few"), CircuitBreaker(mode="shadow")
        pipeline = Pipeline(bulkhead, breaker, name="rejecting")
        breaker.isolate()
        with exposed() as found:
            pipeline.call(int)
            with bulkhead:
                fail(pipeline, 2)

            assert found.all(REJECTIONS, pipeline="rejecting") == {
                ("enforce", "few", "full"): 2,
                ("shadow", "breaker", "isolated"): 1,
            }

    def test_a_policy_without_a_reason(self) -> None:
        class Sulky(Gate[None]):
            kind = "sulky"

            def admit(self, call: Call) -> None:
                raise RejectedError("no")

        pipeline = Pipeline(Sulky(), name="sulking")
        with exposed() as found:
            fail(pipeline)

            assert found.all(REJECTIONS, pipeline="sulking") == {("enforce", "sulky", "other"): 1}

    def test_a_drain(self) -> None:
        pipeline = Pipeline(name="draining")
        pipeline.drain(0)
        with exposed() as found:
            fail(pipeline)

            assert found.all(REJECTIONS, pipeline="draining") == {("enforce", "", "draining"): 1}

    def test_a_cooldown(self, virtual_clock: VirtualClock) -> None:
        del virtual_clock

        cooldown = Cooldown(max_wait=0.0)
        pipeline = Pipeline(cooldown, name="cooling")
        cooldown._begin_pause(10.0)
        with exposed() as found:
            with pytest.raises(RateLimitedError):
                pipeline.call(int)

            assert found.all(REJECTIONS, pipeline="cooling") == {("enforce", "cooldown", "cooldown"): 1}
            assert found.value("resilience_cooldown_active", pipeline="cooling", policy="cooldown") == 1


class TestBreakers:
    def test_each_change_of_state(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(CircuitBreaker(consecutive_failures=2, min_calls=1), name="changing")
        with exposed() as found:
            fail(pipeline, 2)
            virtual_clock.advance(1.0)
            pipeline.call(int)

            assert found.all("resilience_circuit_breaker_transitions_total", pipeline="changing") == {
                ("breaker", "open"): 1,
                ("breaker", "half_open"): 1,
                ("breaker", "closed"): 1,
            }

    def test_a_change_that_a_scrape_notices_is_in_the_next_one(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(CircuitBreaker(consecutive_failures=1, min_calls=1), name="noticed")
        with exposed() as found:
            fail(pipeline)
            virtual_clock.advance(1.0)
            state = found.all("resilience_circuit_breaker_state", pipeline="noticed")

            assert {key[1] for key, value in state.items() if value} == {"half_open"}
            changes = found.all("resilience_circuit_breaker_transitions_total", pipeline="noticed")
            assert changes == {("breaker", "open"): 1, ("breaker", "half_open"): 1}


class TestDeadlines:
    def test_the_scopes(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Timeout(4), Retry(2, wait=backoff.none()), Timeout(1), name="scopes")

        async def main() -> None:
            with pytest.raises(DeadlineExceededError):
                await pipeline.acall(hang)

        with exposed() as found:
            assert found.value("resilience_deadline_exceeded_total", pipeline="scopes", scope="attempt") == 0
            asyncio.run(main())
            pipeline.call(virtual_clock.advance, 5.0)
            with deadline_after(0.5):
                pipeline.call(virtual_clock.advance, 0.75)

            assert found.all("resilience_deadline_exceeded_total", pipeline="scopes") == {
                ("attempt",): 3,
                ("call",): 0,
                ("ambient",): 1,
            }

    def test_in_shadow_mode_none_has_passed(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Timeout(1, mode="shadow"), name="shadow_scopes")
        with exposed() as found:
            pipeline.call(virtual_clock.advance, 5.0)

            assert found.value("resilience_deadline_exceeded_total", pipeline="shadow_scopes", scope="call") == 0


class TestOthers:
    def test_waits_for_a_rate_limit_and_for_nothing_else(self, virtual_clock: VirtualClock) -> None:
        del virtual_clock
        cooldown = Cooldown(spread=0.0)
        pipeline = Pipeline(cooldown, RateLimit(2.0), name="waiting")
        with exposed() as found:
            for _ in range(3):
                pipeline.call(int)
            cooldown._begin_pause(10.0)
            pipeline.call(int)

            assert found.all("resilience_rate_limit_wait_seconds_total", pipeline="waiting") == {("rate_limit",): 1.0}

    def test_fallbacks(self) -> None:
        pipeline = Pipeline(Fallback(value=1), name="falling_back")
        shadow = Pipeline(Fallback(value=1, mode="shadow"), name="falling_in_shadow")
        with exposed() as found:
            fail(pipeline)
            fail(shadow)

            assert found.value("resilience_fallbacks_total", pipeline="falling_back") == 1
            assert found.value("resilience_fallbacks_total", pipeline="falling_in_shadow") == 0

    def test_hedges(self, virtual_clock: VirtualClock) -> None:
        del virtual_clock
        pipeline = Pipeline(Hedge(0.1), name="hedging", budget=RetryBudget(initial=1.0))
        hedged = pipeline.bind(idempotent=True)
        made = iter([5.0, 0.2, 0.2])

        async def work() -> None:
            await anyio.sleep(next(made))

        async def main() -> None:
            await hedged.acall(work)
            await hedged.acall(work)

        with exposed() as found:
            asyncio.run(main())

            assert found.all("resilience_hedges_total", pipeline="hedging") == {("won",): 1, ("refused",): 1}
            assert found.all("resilience_call_retries_bucket", pipeline="hedging", le="1.0") == {(): 1}

    def test_retries_of_an_sdk_around_the_pipeline(self) -> None:
        pipeline = Pipeline(name="around")
        with exposed() as found:
            pipeline.engine.info.count_foreign_retry()
            assert found.value("resilience_foreign_retries_total", pipeline="around") == 1
            assert pipeline.snapshot()["foreign_retries"] == 1
            del pipeline

            assert found.value("resilience_foreign_retries_total", pipeline="around") == 1


class TestListeners:
    def test_one_that_raises_is_counted_and_changes_nothing(self) -> None:
        def broken(event: Event) -> None:
            raise ZeroDivisionError

        pipeline = Pipeline(Retry(wait=backoff.none()), name="broken_listener")
        with exposed() as found, subscribe(broken):
            assert pipeline.call(Failing(1)) == "fine"

            assert found.value("resilience_listener_errors_total", pipeline="broken_listener") == 4
            assert found.value("resilience_calls_total", pipeline="broken_listener", outcome="ok") == 1

    @pytest.mark.slow
    def test_ones_that_come_and_go_or_block_while_calls_run_change_no_outcome(self) -> None:
        pipeline, over = Pipeline(Retry(2, wait=backoff.none()), name="restless", budget=None), threading.Event()
        moment = threading.Event()

        def blocks(event: Event) -> None:
            moment.wait(0.001)

        def restless(index: int) -> int:
            number = 0
            while not over.is_set():
                number += 1
                with pipeline.subscribe(blocks), exposed(pipelines=[pipeline]) as another:
                    another.text()
            return number

        def calling(index: int) -> int:
            for _ in range(40):
                assert pipeline.call(Failing(1)) == "fine"
            over.set()
            return 0

        jobs: list[Callable[[int], int]] = [calling, restless, calling, restless]
        with exposed() as found:
            assert sum(in_threads(4, lambda index: jobs[index](index)))

            assert found.value("resilience_calls_total", pipeline="restless", outcome="ok") == 80
            assert found.value("resilience_attempts_total", pipeline="restless", outcome="failed") == 80

    def test_a_state_that_cannot_be_read_is_left_out(self) -> None:
        class Broken(Bulkhead):
            def snapshot(self) -> dict[str, Any]:
                raise ZeroDivisionError

        pipeline = Pipeline(Broken(3), CircuitBreaker(), name="unreadable")
        with exposed() as found:
            assert found.all("resilience_bulkhead_limit", pipeline="unreadable") == {}
            assert len(found.all("resilience_circuit_breaker_state", pipeline="unreadable")) == 4
        assert pipeline.name == "unreadable"


def test_an_event_that_a_finalizer_publishes_is_counted_by_the_next_scrape() -> None:
    pipeline = Pipeline(name="counted_later")
    with exposed() as found:
        pipeline.call(int)
        thread_state.finalizing = True
        try:
            pipeline.engine.info.bus.publish(
                FallbackUsed, pipeline="counted_later", policy="", operation="", target=None
            )
        finally:
            thread_state.finalizing = False
        assert found.value("resilience_fallbacks_total", pipeline="counted_later") == 1


@pytest.mark.usefixtures("frequent_switches")
def test_a_signal_handler_that_counts_in_the_middle_of_a_count() -> None:
    counts, handled = OwnCounts(), list[Any]()

    class Interrupted(dict[Any, float]):
        def get(self, values: Any, default: Any = None) -> Any:
            found = super().get(values, default)
            if values not in handled:
                handled.append(values)
                counts.add(FALLBACKS, ("one",))  # as a handler that makes a call
            return found

    counts._values[FALLBACKS] = Interrupted()
    counts.add(FALLBACKS, ("one",))

    assert counts.read()[FALLBACKS] == {("one",): 2.0}


def test_threads_lose_no_event() -> None:
    counts = OwnCounts()

    def work(index: int) -> None:
        del index
        for _ in range(300):
            counts.add(FALLBACKS, ("p",), 0.5)

    in_threads(8, work)

    assert counts.read()[FALLBACKS] == {("p",): 1200.0}


def test_the_keys_of_a_partition() -> None:
    pipeline = Pipeline(Partition(lambda: CircuitBreaker(consecutive_failures=1)), name="keyed_events")
    with seeded(7), exposed(key_labels=True) as found, exposed() as summed:
        for target in ("https://a:b@one.example/?secret", "two.example"):
            for _ in range(3):
                with suppress(ConnectionError, RejectedError):
                    pipeline.bind(target=target).call(down)

        assert found.all(REJECTIONS, pipeline="keyed_events") == {
            ("https://one.example/", "enforce", "breaker", "open"): 2,
            ("two.example", "enforce", "breaker", "open"): 2,
        }
        changes = found.all("resilience_circuit_breaker_transitions_total", pipeline="keyed_events", to="open")
        assert changes == {("https://one.example/", "breaker"): 1, ("two.example", "breaker"): 1}
        assert summed.all(REJECTIONS, pipeline="keyed_events") == {("enforce", "breaker", "open"): 4}
