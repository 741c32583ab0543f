"""The counts of calls and attempts in one process: exact whatever runs at once, and never smaller than before."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import Pipeline, RateLimitedError, Retry, backoff
from resilience._pipeline.observers import MOST_PENDING
from resilience._util.locks import new_lock
from resilience.events import Outcome
from resilience.prometheus._meters import Cell, Histogram, NamedMeters
from resilience.testing import VirtualClock
from tests.prometheus.reading import exposed
from tests.support.fork import in_child
from tests.support.functions import Failing, Flaky, down, raising
from tests.support.threads import in_threads

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")
CALLS, ATTEMPTS = "resilience_calls_total", "resilience_attempts_total"
BOUNDS = (0.1, 1.0, 10.0)


class TestHistogram:
    @given(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 3.0, 10.0, 11.0]) | st.floats(0, 100)))
    def test_values_go_into_the_buckets_that_they_are_not_above(self, values: list[float]) -> None:
        histogram = Histogram(BOUNDS)
        histogram.add_sorted(sorted(values))

        below = [sum(value <= bound for value in values) for bound in (*BOUNDS, math.inf)]
        assert [sum(histogram.counts[: number + 1]) for number in range(4)] == below
        assert histogram.sum == pytest.approx(sum(values))

    def test_a_copy_stays_as_it_is(self) -> None:
        histogram = Histogram(BOUNDS)
        copy = histogram.copy()
        histogram.add_sorted([0.5])

        assert (copy.counts, copy.sum) == ([0, 0, 0, 0], 0.0)


class TestCell:
    def test_what_is_pending_is_added_up_when_it_is_read(self) -> None:
        meters = NamedMeters(new_lock(), BOUNDS)
        meters.calls.ok(0.5)
        meters.calls.ended(Outcome.FAILED, 3.0, 3)
        meters.calls.ended(Outcome.OK, 2.0, 2)
        reading = meters.calls.read()

        assert {one.value: count for one, count in reading.outcomes.items() if count} == {"ok": 2, "failed": 1}
        assert (reading.durations.counts, reading.durations.sum) == ([0, 1, 2, 0], 5.5)
        assert (reading.retries.counts, reading.retries.sum) == ([1, 1, 0, 0, 0, 0], 3.0)
        assert meters.calls.pending == []

    def test_many_bad_endings_are_added_up_without_a_scrape(self) -> None:
        meters = NamedMeters(new_lock(), BOUNDS)
        for _ in range(MOST_PENDING + 1):
            meters.attempts.ok(0.5)
            meters.calls.ended(Outcome.OK, 1.0, 2)

        assert (meters.calls.pending, meters.calls._others) == ([], [])
        assert meters.attempts.pending == []

    def test_a_fold_that_is_interrupted_by_a_signal_handler_counts_once(self) -> None:
        cell: Any = None

        class Interrupted(list[float]):
            def __getitem__(self, index: Any) -> Any:
                found = super().__getitem__(index)
                cell.ok(0.5)
                cell.flush()  # as a handler that makes many calls
                return found

        cell = Cell(new_lock(), BOUNDS, Outcome, is_of_calls=True)
        cell.pending = Interrupted([1.0])
        cell.ok = cell.pending.append
        cell.flush()
        cell.pending = list(cell.pending)

        assert cell.read().outcomes[Outcome.OK] == 2

    def test_only_attempts_are_estimated(self) -> None:
        meters = NamedMeters(new_lock(), BOUNDS)
        for _ in range(100):
            meters.calls.ok(5.0)
            meters.attempts.ok(0.5)
        meters.calls.flush()

        assert meters.estimator.count == 100
        assert meters.estimator.estimate() == pytest.approx(0.5, rel=0.02)


class TestExposed:
    def test_each_outcome_of_calls_and_attempts(self, virtual_clock: VirtualClock) -> None:
        pipeline = Pipeline(Retry(2, wait=backoff.none()), name="each_outcome")

        def slow() -> None:
            virtual_clock.advance(0.25)

        with exposed(buckets=BOUNDS) as found:
            pipeline.call(slow)
            pipeline.call(Flaky())
            for error in (ValueError(), RateLimitedError("theirs"), KeyboardInterrupt()):
                with suppress(BaseException):
                    pipeline.call(raising(error))
            with pytest.raises(ConnectionError):
                pipeline.call(down)

            assert found.all(CALLS, pipeline="each_outcome") == {
                ("ok",): 2,
                ("error",): 1,
                ("failed",): 1,
                ("rejected",): 1,
                ("timed_out",): 0,
                ("abandoned",): 1,
                ("fallback",): 0,
            }
            assert found.all(ATTEMPTS, pipeline="each_outcome") == {
                ("ok",): 2,
                ("error",): 1,
                ("failed",): 3,
                ("timed_out",): 0,
                ("abandoned",): 2,
            }
            assert found.all("resilience_call_duration_seconds_bucket", pipeline="each_outcome") == {
                ("0.1",): 5,
                ("1.0",): 6,
                ("10.0",): 6,
                ("+Inf",): 6,
            }
            assert found.value("resilience_call_duration_seconds_sum", pipeline="each_outcome") == 0.25
            assert found.value("resilience_attempt_duration_seconds_count", pipeline="each_outcome") == 8
            assert found.value("resilience_call_retries_count", pipeline="each_outcome") == 2
            assert found.value("resilience_call_retries_bucket", pipeline="each_outcome", le="1.0") == 2

    def test_pipelines_of_one_name_add_up_and_outlive_the_pipelines(self) -> None:
        with exposed() as found:
            for _ in range(3):
                Pipeline(name="one_name").call(int)

            assert found.value(CALLS, pipeline="one_name", outcome="ok") == 3
            assert found.value(CALLS, pipeline="one_name", outcome="ok") == 3

    @pytest.mark.slow
    def test_no_counter_goes_back_and_the_parts_of_a_scrape_fit(self) -> None:
        pipeline, over = Pipeline(Retry(2, wait=backoff.none()), name="never_back"), threading.Event()
        chance = random.Random(7)

        def work() -> int:
            made = 0
            while not over.is_set():
                functions: list[Callable[[], object]] = [int, Flaky(), down, raising(ValueError())]
                with suppress(ConnectionError, ValueError):
                    pipeline.call(chance.choice(functions))
                made += 1
            return made

        with exposed(pipelines=[pipeline]) as found:

            def scrape() -> int:
                before: dict[tuple[str, ...], float] = {}
                try:
                    for _ in range(20):
                        now = found.all(CALLS, pipeline="never_back")
                        assert all(now[key] >= value for key, value in before.items())
                        buckets = found.all("resilience_call_duration_seconds_bucket", pipeline="never_back")
                        assert buckets["+Inf",] >= sum(now.values())
                        before = now
                finally:
                    over.set()
                return 0

            made = sum(in_threads(5, lambda index: work() if index else scrape()))

            assert sum(found.all(CALLS, pipeline="never_back").values()) == made
            assert found.value("resilience_call_duration_seconds_count", pipeline="never_back") == made


THREADS, ROUNDS = 8, 5_000


@pytest.mark.slow
@pytest.mark.usefixtures("frequent_switches")
def test_threads_lose_no_count() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.none()), name="exact_in_threads", budget=None)

    def work(index: int) -> Counter[str]:
        made: Counter[str] = Counter()
        for number in range(ROUNDS):
            if number % 50 == 0:
                with suppress(ConnectionError):
                    pipeline.call(down)
                made["failed"] += 1
            else:
                pipeline.call(int if number % 10 else Failing(1))
                made["ok"] += 1
                made["retried"] += not number % 10
        return made

    with exposed() as found:
        made = sum(in_threads(THREADS, work), Counter[str]())

        assert made.total() - made["retried"] == THREADS * ROUNDS
        assert found.value(CALLS, pipeline="exact_in_threads", outcome="ok") == made["ok"]
        assert found.value(CALLS, pipeline="exact_in_threads", outcome="failed") == made["failed"]
        assert found.value(ATTEMPTS, pipeline="exact_in_threads", outcome="ok") == made["ok"]
        retried = made["retried"] + 2 * made["failed"]
        assert found.value(ATTEMPTS, pipeline="exact_in_threads", outcome="failed") == retried
        for name, count in (("call", THREADS * ROUNDS), ("attempt", made["ok"] + retried)):
            metric = f"resilience_{name}_duration_seconds"
            assert found.value(f"{metric}_count", pipeline="exact_in_threads") == count
            assert found.value(f"{metric}_bucket", pipeline="exact_in_threads", le="+Inf") == count


@pytest.mark.slow
def test_four_loops_in_four_threads_lose_no_count() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.none()), name="exact_in_loops", budget=None)

    async def task() -> None:
        for number in range(500):
            await pipeline.acall(int if number % 10 else Failing(1))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(task())

    with exposed() as found:
        in_threads(4, lambda index: asyncio.run(main()))

        assert found.value(CALLS, pipeline="exact_in_loops", outcome="ok") == 8000
        assert found.value(ATTEMPTS, pipeline="exact_in_loops", outcome="failed") == 800
        assert found.value("resilience_call_retries_count", pipeline="exact_in_loops") == 800


def test_a_child_goes_on_counting_from_what_was_counted_before() -> None:
    pipeline = Pipeline(name="counted_in_child")
    with exposed() as found:
        pipeline.call(int)

        def child() -> str:
            pipeline.call(int)
            return str(found.value(CALLS, pipeline="counted_in_child", outcome="ok"))

        assert in_child(child) == "2"
        assert found.value(CALLS, pipeline="counted_in_child", outcome="ok") == 1
