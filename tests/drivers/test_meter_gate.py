"""What metrics get to know of calls and attempts: each once, with its outcome, duration and number of attempts."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncGenerator, Generator
from functools import partial
from typing import Any

import anyio
import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    DeadlineExceededError,
    Fallback,
    Hedge,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
)
from resilience._drivers.meter_gate import MOST_PENDING
from resilience._pipeline.observers import install, uninstall
from resilience.events import Outcome
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import Failing, Flaky, down, hang, raising
from tests.support.garbage import no_collection
from tests.support.loops import Run, each_loop
from tests.support.meters import Noted, Tally, measured
from tests.support.policies import Closed, Streaming
from tests.support.threads import in_threads, wait_until
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

NOW = backoff.none()
# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@each_way
class TestOutcomes:
    def test_a_success_is_a_duration_in_both_meters(self, make: Make) -> None:
        with measured() as tally:
            make(Pipeline(Retry(), Bulkhead(3)), int)

        assert (len(tally.calls.pending), len(tally.attempts.pending)) == (1, 1)
        assert tally.calls.pending[0] >= tally.attempts.pending[0] >= 0
        assert (tally.calls.others, tally.attempts.others) == ([], [])

    @pytest.mark.parametrize(
        ("error", "outcome"),
        [
            (ValueError(), "error"),
            (ConnectionError(), "failed"),
            (DeadlineExceededError(), "timed_out"),
            (LookupError(), "ok"),
            (asyncio.CancelledError(), "abandoned"),
        ],
        ids=lambda one: one if isinstance(one, str) else type(one).__name__,
    )
    def test_an_exception(self, make: Make, error: BaseException, outcome: str) -> None:
        pipeline = Pipeline[Any](failures=Allowlist(ConnectionError, answers=(LookupError,)))

        with measured() as tally, pytest.raises(type(error)):
            make(pipeline, raising(error))

        for others in (tally.calls.others, tally.attempts.others):
            assert [(one, attempts) for one, _, attempts in others] == [(outcome, 1)]

    def test_a_call_with_retries_has_the_number_of_its_attempts(self, make: Make) -> None:
        with measured() as tally:
            make(Pipeline(Retry(wait=NOW)), Flaky())

        assert [(one, attempts) for one, _, attempts in tally.calls.others] == [("ok", 2)]
        assert tally.outcomes_of_attempts == ["ok", "failed"]

    def test_a_rejected_call_has_no_attempt(self, make: Make) -> None:
        with measured() as tally, pytest.raises(RejectedError):
            make(Pipeline(Closed()), int)

        assert [(one, attempts) for one, _, attempts in tally.calls.others] == [("rejected", 0)]
        assert tally.outcomes_of_attempts == []

    def test_a_call_during_a_drain_is_rejected(self, make: Make) -> None:
        pipeline = Pipeline(Retry())
        with measured() as tally:
            pipeline.drain(0)
            with pytest.raises(RejectedError):
                make(pipeline, int)

        assert tally.outcomes == ["rejected"]

    def test_a_bad_result_is_a_failure(self, make: Make) -> None:
        pipeline = Pipeline[Any](failures=Allowlist.of_results(lambda result: result == 503))
        with measured() as tally:
            assert make(pipeline, lambda: 503) == 503

        assert (tally.outcomes, tally.outcomes_of_attempts) == (["failed"], ["failed"])

    def test_a_replaced_failure_is_a_fallback_of_a_failed_attempt(self, make: Make) -> None:
        with measured() as tally:
            assert make(Pipeline(Fallback(value=3), Retry(1)), down) == 3

        assert (tally.outcomes, tally.outcomes_of_attempts) == (["fallback"], ["failed"])

    def test_an_inner_pipeline_is_measured_by_itself(self, make: Make) -> None:
        inner = Pipeline(Retry(2, wait=NOW), name="inner_of_meters")
        outer = Pipeline(Retry(3, nested=True, wait=NOW), inner, name="outer_of_meters")
        with measured("inner_of_meters") as within, measured("outer_of_meters") as without:
            make(outer, Failing(3))

        assert [(one, attempts) for one, _, attempts in within.calls.others] == [("failed", 2), ("ok", 2)]
        assert within.outcomes_of_attempts == ["ok", "failed", "failed", "failed"]
        assert [(one, attempts) for one, _, attempts in without.calls.others] == [("ok", 4)]
        assert without.outcomes_of_attempts == ["ok", "failed", "failed", "failed"]

    def test_all_metrics_that_are_in_force_count(self, make: Make) -> None:
        with measured() as one, measured() as other:
            make(Pipeline(Retry(wait=NOW)), Flaky())

        assert one.outcomes == other.outcomes == ["ok"]


class TestDurations:
    @each_way
    def test_are_of_the_whole_call_and_of_each_attempt(self, make: Make, virtual_clock: VirtualClock) -> None:
        def slow() -> None:
            virtual_clock.advance(2.0)
            flaky()

        flaky = Flaky()
        with measured() as tally:
            make(Pipeline(Retry(wait=backoff.fixed(8))), slow)

        assert [seconds for _, seconds, _ in tally.calls.others] == [12.0]
        assert [seconds for _, seconds, _ in tally.attempts.others] == [2.0]
        assert tally.attempts.pending == [2.0]

    @each_way
    def test_a_late_value_is_timed_out(self, make: Make, virtual_clock: VirtualClock) -> None:
        with measured() as tally:
            make(Pipeline(Timeout(1)), partial(virtual_clock.advance, 3.0))

        assert [(one.value, seconds) for one, seconds, _ in tally.calls.others] == [("timed_out", 3.0)]
        assert tally.outcomes_of_attempts == ["timed_out"]

    @each_loop
    def test_a_cut_call_is_timed_out(self, run: Run) -> None:
        pipeline = Pipeline(Timeout(1))

        async def main() -> None:
            with pytest.raises(DeadlineExceededError):
                await pipeline.acall(hang)

        with measured() as tally:
            run(main)

        assert tally.outcomes == ["timed_out"]
        assert [round(seconds, 6) for _, seconds, _ in tally.calls.others] == [1.0]
        assert tally.outcomes_of_attempts == ["timed_out"]


@each_loop
def test_calls_that_are_cancelled_are_abandoned(run: Run) -> None:
    full = Turnstile(patience=60)
    assert full.take()
    waiting, running = Pipeline(full), Pipeline(Retry())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for pipeline in (waiting, running):
                group.start_soon(pipeline.acall, hang)
            await anyio.sleep(1)
            group.cancel_scope.cancel()

    with measured() as tally:
        run(main)

    assert sorted((one.value, attempts) for one, _, attempts in tally.calls.others) == [
        ("abandoned", 0),
        ("abandoned", 1),
    ]
    assert tally.outcomes_of_attempts == ["abandoned"]


def test_a_coroutine_that_is_dropped_is_abandoned() -> None:
    pipeline = Pipeline(Retry())

    async def main() -> None:
        call: Any = pipeline.acall(hang)
        call.send(None)
        del call
        gc.collect()

    with measured() as tally:
        asyncio.run(main())
        pipeline.call(int)

    assert tally.outcomes == ["ok", "abandoned"]
    assert tally.outcomes_of_attempts == ["ok", "abandoned"]


class TestHedges:
    @each_loop
    def test_each_attempt_is_counted_and_the_call_once(self, run: Run) -> None:
        pipeline = Pipeline(Hedge(0.1)).bind(idempotent=True)
        made = iter([5.0, 0.2])

        async def work() -> str:
            await anyio.sleep(next(made))
            return "fine"

        with measured() as tally:
            assert run(partial(pipeline.acall, work)) == "fine"

        ((outcome, seconds, attempts),) = tally.calls.others
        assert (outcome.value, round(seconds, 6), attempts) == ("ok", 0.3, 2)
        assert tally.outcomes_of_attempts == ["ok", "abandoned"]

    @pytest.mark.slow
    def test_on_threads_the_loser_is_counted_when_it_ends(self) -> None:
        pipeline = Pipeline(Hedge(0.01)).bind(idempotent=True)
        release, numbers = threading.Event(), iter(range(2))

        def work() -> int:
            number = next(numbers)
            if number == 0:
                release.wait(10)
            return number

        with measured() as tally:
            assert pipeline.call(work) == 1
            assert tally.outcomes_of_attempts == ["ok"]
            release.set()
            wait_until(lambda: len(tally.attempts.pending) == 2)

        assert [(one, attempts) for one, _, attempts in tally.calls.others] == [("ok", 2)]


class TestStreams:
    def test_a_stream_ends_with_its_last_item(self, virtual_clock: VirtualClock) -> None:
        def items() -> Generator[int]:
            for number in range(3):
                virtual_clock.advance(1.0)
                yield number

        with measured() as tally:
            stream: Any = Pipeline(Retry(), name="stream_of_meters")(items)()
            assert next(stream) == 0
            assert tally.outcomes == tally.outcomes_of_attempts == []
            assert list(stream) == [1, 2]

        assert [(one, seconds, attempts) for one, seconds, attempts in tally.calls.others] == [("ok", 3.0, 1)]
        assert [(one, seconds) for one, seconds, _ in tally.attempts.others] == [("ok", 3.0)]

    def test_a_stream_that_breaks_has_failed(self) -> None:
        def items() -> Generator[int]:
            yield 1
            raise ConnectionError

        with measured() as tally:
            stream: Any = Pipeline(Retry(), name="broken_of_meters")(items)()
            assert next(stream) == 1
            with pytest.raises(ConnectionError):
                next(stream)

        assert (tally.outcomes, tally.outcomes_of_attempts) == (["failed"], ["failed"])

    def test_an_async_stream_that_is_closed_early_is_ok(self) -> None:
        async def items() -> AsyncGenerator[int]:
            yield 1
            yield 2

        async def main() -> None:
            stream: Any = Pipeline(Retry(), name="async_of_meters")(items)()
            assert await anext(stream) == 1
            await stream.aclose()

        with measured() as tally:
            asyncio.run(main())

        assert (tally.outcomes, tally.outcomes_of_attempts) == (["ok"], ["ok"])

    def test_a_retried_stream_has_the_number_of_the_attempts_up_to_its_head(self) -> None:
        flaky = Flaky()

        def items() -> Generator[int]:
            flaky()
            yield 1

        with measured() as tally:
            assert list(Pipeline(Retry(wait=NOW), name="retried_of_meters")(items)()) == [1]

        assert [(one, attempts) for one, _, attempts in tally.calls.others] == [("ok", 2)]
        assert sorted(tally.outcomes_of_attempts) == ["failed", "ok"]

    def test_the_meters_keep_no_stream_alive(self) -> None:
        streaming = Streaming()
        pipeline = Pipeline(Bulkhead(1), streaming)

        with no_collection(), measured() as tally:
            pipeline.call(int)
            assert pipeline.get(Bulkhead).in_flight == 1
            streaming.left.clear()

            assert pipeline.get(Bulkhead).in_flight == 0
            assert tally.outcomes == ["abandoned"]


class TestPending:
    def test_many_are_flushed(self) -> None:
        pipeline = Pipeline(Retry())
        with measured() as tally:
            for _ in range(2 * MOST_PENDING + 2):
                pipeline.call(int)

        assert tally.calls.flushed == [MOST_PENDING + 1] * 2
        assert tally.attempts.flushed == []

    def test_many_awaited_ones_are_flushed(self) -> None:
        pipeline = Pipeline(Retry())

        async def main() -> None:
            for _ in range(MOST_PENDING + 1):
                await pipeline.acall(int)

        with measured() as tally:
            asyncio.run(main())

        assert tally.calls.flushed == [MOST_PENDING + 1]


@pytest.mark.usefixtures("nothing_logged_yet")
def test_an_error_of_a_meter_never_reaches_the_call(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Noted):
        def ended(self, outcome: Outcome, seconds: float, attempts: int) -> None:
            raise ZeroDivisionError

    tally = Tally()
    tally.calls = Broken(is_of_calls=True)
    install(tally)
    try:
        assert Pipeline(Retry(wait=NOW)).call(Failing(1)) == "fine"
        with pytest.raises(ValueError, match="ours"):
            Pipeline(Retry()).call(raising(ValueError("ours")))
    finally:
        uninstall(tally)

    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1


@pytest.mark.usefixtures("frequent_switches")
def test_threads_lose_no_count() -> None:
    pipeline = Pipeline(Retry(wait=NOW))

    def work(index: int) -> None:
        del index
        for _ in range(200):
            pipeline.call(int)
            with pytest.raises(ConnectionError):
                pipeline.call(down)

    with measured() as tally:
        in_threads(8, work)

    assert (len(tally.calls.pending) + sum(tally.calls.flushed), len(tally.calls.others)) == (1600, 1600)
    assert len(tally.attempts.pending) == 1600


def test_time_that_stands_still_is_a_duration_of_zero() -> None:
    with virtual_time(), measured() as tally:
        Pipeline(Retry()).call(int)

    assert tally.calls.pending == [0.0]
    assert tally.calls.others == []
