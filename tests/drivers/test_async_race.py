"""Attempts that race in tasks: the first good answer wins, and nothing of the others is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    DeadlineExceededError,
    Hedge,
    Pipeline,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
    remaining,
)
from resilience.events import AttemptEnded, CallEnded, HedgeEnded, HedgeResult, HedgeStarted
from resilience.testing import Recorder
from tests.support.cancellation import RUNNERS, Report, Scenario
from tests.support.functions import AppError
from tests.support.loops import Run, each_loop, on_asyncio, on_trio, uncancelled


class Dependency:
    """Answers or fails after so many seconds, attempt by attempt; the last entry holds for all that follow."""

    def __init__(self, *plan: float | tuple[float, BaseException]) -> None:
        self.plan = plan
        self.calls = 0
        self.running = 0
        self.cancelled: list[int] = []

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        step = self.plan[min(number, len(self.plan)) - 1]
        seconds, error = step if isinstance(step, tuple) else (step, None)
        self.running += 1
        try:
            await anyio.sleep(seconds)
        except BaseException:
            self.cancelled.append(number)
            raise
        finally:
            self.running -= 1
        if error is not None:
            raise error
        return number


def hedged(pipeline: Pipeline[Any], dependency: Callable[[], Any]) -> Callable[[], Any]:
    async def main() -> Any:
        with anyio.fail_after(1000):
            result = await pipeline.bind(idempotent=True).acall(dependency)
        assert uncancelled()
        return result

    return main


@each_loop
def test_the_first_attempt_wins_and_no_other_is_started(run: Run) -> None:
    dependency = Dependency(0.01)
    pipeline = Pipeline(Hedge(0.1))

    with Recorder(pipeline) as recorder:
        assert run(hedged(pipeline, dependency)) == 1

    assert dependency.calls == 1
    assert not any(isinstance(event, HedgeStarted | HedgeEnded) for event in recorder.events)


@each_loop
def test_a_further_attempt_wins_and_the_first_one_is_cancelled_and_awaited(run: Run) -> None:
    dependency = Dependency(60.0, 0.5)
    pipeline = Pipeline(Hedge(0.1), Bulkhead(5))

    with Recorder(pipeline, events=(HedgeStarted, HedgeEnded, AttemptEnded, CallEnded)) as recorder:
        assert run(hedged(pipeline, dependency)) == 2

    assert (dependency.calls, dependency.running, dependency.cancelled) == (2, 0, [1])
    assert pipeline.get(Bulkhead).in_flight == 0
    (started,) = recorder.of(HedgeStarted)
    assert started.attempt == 2
    assert started.after == pytest.approx(0.1)
    (ended,) = recorder.of(HedgeEnded)
    assert (ended.result, ended.attempts) == (HedgeResult.WON, 2)
    assert [(one.attempt, str(one.outcome)) for one in recorder.of(AttemptEnded)] == [(2, "ok"), (1, "abandoned")]
    (call,) = recorder.of(CallEnded)
    assert (str(call.outcome), call.attempts) == ("ok", 2)
    assert call.elapsed == pytest.approx(0.6)


@each_loop
def test_the_first_attempt_wins_and_the_further_ones_are_cancelled_and_awaited(run: Run) -> None:
    dependency = Dependency(0.5, 60.0)
    pipeline = Pipeline(Hedge(0.1, max_hedges=3), budget=None)

    with Recorder(pipeline) as recorder:
        assert run(hedged(pipeline, dependency)) == 1

    assert (dependency.calls, dependency.running) == (4, 0)
    assert sorted(dependency.cancelled) == [2, 3, 4]
    assert recorder.of(HedgeEnded)[0].result is HedgeResult.LOST


@each_loop
def test_a_failure_starts_the_next_attempt_at_once(run: Run) -> None:
    dependency = Dependency((0.5, ConnectionError("down")), 0.5)
    pipeline = Pipeline(Hedge(60))

    with Recorder(pipeline) as recorder:
        assert run(hedged(pipeline, dependency)) == 2

    assert recorder.of(HedgeStarted)[0].after == pytest.approx(0.5)


@each_loop
def test_all_failed_gives_the_first_failure(run: Run) -> None:
    dependency = Dependency((2.0, ConnectionError("slow")), (0.2, ConnectionError("first")))

    with pytest.raises(ConnectionError, match="first"):
        run(hedged(Pipeline(Hedge(0.1)), dependency))

    assert (dependency.calls, dependency.running) == (2, 0)


@each_loop
def test_a_failure_waits_for_the_attempt_that_still_runs(run: Run) -> None:
    dependency = Dependency((0.5, ConnectionError("down")), 5.0)

    assert run(hedged(Pipeline(Hedge(0.1)), dependency)) == 2


@each_loop
@pytest.mark.parametrize("number", [1, 2])
def test_an_error_of_the_caller_is_raised_at_once(run: Run, number: int) -> None:
    plan: list[Any] = [60.0, 60.0]
    plan[number - 1] = (0.5, AppError("mistake"))
    dependency = Dependency(*plan)

    with pytest.raises(AppError):
        run(hedged(Pipeline(Hedge(0.1)), dependency))

    assert dependency.running == 0
    assert dependency.cancelled == [3 - number]


@each_loop
def test_a_retry_around_it_repeats_the_race(run: Run) -> None:
    down = ConnectionError("down")
    dependency = Dependency((0.1, down), (0.1, down), (0.1, down), 0.1)
    pipeline = Pipeline(Retry(2, wait=backoff.none()), Hedge(60))

    with Recorder(pipeline) as recorder:
        assert run(hedged(pipeline, dependency)) == 4

    assert recorder.of(CallEnded)[0].attempts == 4
    assert [one.attempt for one in recorder.of(AttemptEnded)] == [1, 2, 3, 4]


@each_loop
def test_retries_and_hedges_pay_from_one_budget_and_a_success_pays_in_once(run: Run) -> None:
    budget = RetryBudget(ratio=0.5, capacity=10, initial=2)
    pipeline = Pipeline(Retry(3, wait=backoff.none()), Hedge(0.1), budget=budget)

    assert run(hedged(pipeline, Dependency(5.0, 0.5))) == 2
    assert budget.tokens == 1.5

    down = (0.01, ConnectionError("down"))
    with pytest.raises(ConnectionError):
        run(hedged(pipeline, Dependency(down)))
    assert budget.tokens == 0.5


@each_loop
def test_no_attempt_is_started_while_the_breaker_inside_is_not_closed(run: Run) -> None:
    breaker = CircuitBreaker(consecutive_failures=2, min_calls=1, window_calls=100, failure_rate=1.0, open_for=1.0)
    pipeline = Pipeline(Hedge(0.1), breaker)
    dependency = Dependency(0.5)

    async def main() -> Any:
        with contextlib.suppress(ConnectionError):
            await pipeline.acall(Dependency((0.0, ConnectionError())))
        assert str(breaker.state) == "open"
        await anyio.sleep(2)
        assert str(breaker.state) == "half_open"
        return await hedged(pipeline, dependency)()

    with Recorder(pipeline) as recorder:
        assert run(main) == 1

    assert dependency.calls == 1
    assert recorder.of(HedgeEnded)[0].result is HedgeResult.REFUSED


@each_loop
def test_the_deadline_around_it_cuts_all_attempts(run: Run) -> None:
    dependency = Dependency(60.0)
    pipeline = Pipeline(Timeout(1.0), Hedge(0.1, max_hedges=2), Bulkhead(9))

    with pytest.raises(DeadlineExceededError):
        run(hedged(pipeline, dependency))

    assert (dependency.calls, dependency.running, pipeline.get(Bulkhead).in_flight) == (3, 0, 0)


@each_loop
def test_the_timeout_inside_it_makes_the_next_attempt_due(run: Run) -> None:
    dependency = Dependency(60.0, 60.0, 0.1)
    pipeline = Pipeline(Hedge(0.9, max_hedges=2), Timeout(1.0))

    with Recorder(pipeline) as recorder:
        assert run(hedged(pipeline, dependency)) == 3

    assert [one.after for one in recorder.of(HedgeStarted)] == [pytest.approx(0.9), pytest.approx(1.0)]


@each_loop
def test_each_attempt_has_the_whole_time_of_the_timeout_inside(run: Run) -> None:
    dependency = Dependency(60.0, 0.9)

    assert run(hedged(Pipeline(Hedge(0.2), Timeout(1.0)), dependency)) == 2


@each_loop
def test_events_of_a_race_around_a_nested_pipeline_name_the_outer_one(run: Run) -> None:
    inner = Pipeline(Bulkhead(5), Timeout(5.0), name=f"inner, {run.__name__}")
    outer = Pipeline(Hedge(0.1), inner, name=f"outer, {run.__name__}")

    with Recorder(outer) as recorder, Recorder(inner) as inner_recorder:
        assert run(hedged(outer, Dependency(60.0, 0.5))) == 2

    assert [one.pipeline for one in recorder.of(HedgeStarted)] == [outer.name]
    assert [one.policy for one in recorder.of(HedgeStarted)] == ["hedge"]
    assert inner_recorder.of(HedgeStarted) == []
    assert inner.get(Bulkhead).in_flight == 0


@each_loop
def test_the_code_inside_of_each_attempt_sees_the_deadline(run: Run) -> None:
    seen: list[float | None] = []

    async def look() -> None:
        seen.append(remaining())
        await anyio.sleep(0.3)

    run(hedged(Pipeline(Timeout(2.0), Hedge(0.25)), look))

    assert seen == [pytest.approx(2.0), pytest.approx(1.75)]


@each_loop
def test_what_the_first_attempt_sets_in_the_context_is_there_afterwards(run: Run) -> None:
    variable = ContextVar("variable", default="before")

    async def sets() -> None:
        await anyio.lowlevel.checkpoint()
        variable.set("after")

    async def main() -> str:
        await pipeline.bind(idempotent=True).acall(sets)
        return variable.get()

    pipeline = Pipeline(Hedge(0.1))

    assert run(main) == "after"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_in_an_attempt_ends_the_race_as_it_is(error: BaseException) -> None:
    """In trio. asyncio stops its loop for such an exception of a task."""
    dependency = Dependency(60.0)

    async def interrupted() -> Any:
        if dependency.calls == 0:
            return await dependency()
        raise error

    async def main() -> Any:
        with pytest.raises(type(error)):
            await pipeline.bind(idempotent=True).acall(interrupted)
        return dependency.running

    pipeline = Pipeline(Hedge(0.1))
    assert on_trio(main) == 0


def test_a_late_answer_of_a_loser_is_closed() -> None:
    """The loser swallows its cancellation, and returns a stream after all. In trio no task can do that."""
    streams: list[Stream] = []

    class Stream:
        status_code = 200
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    async def fetch() -> Stream:
        stream = Stream()
        streams.append(stream)
        if len(streams) == 1:
            with contextlib.suppress(BaseException):
                await anyio.sleep(60)
            return stream
        await anyio.sleep(0.1)
        return stream

    assert on_asyncio(hedged(Pipeline(Hedge(0.1)), fetch)) is streams[1]

    assert [stream.closed for stream in streams] == [True, False]


@each_loop
def test_in_shadow_mode_one_attempt_is_made_and_a_further_one_reported(run: Run) -> None:
    dependency = Dependency(0.5)
    pipeline = Pipeline(Hedge(0.1, mode="shadow"), budget=RetryBudget(capacity=5, initial=1))

    with Recorder(pipeline) as recorder:
        assert run(hedged(pipeline, dependency)) == 1

    assert dependency.calls == 1
    (started,) = recorder.of(HedgeStarted)
    assert (started.attempt, str(started.mode)) == (2, "shadow")
    assert started.after == pytest.approx(0.1)
    assert isinstance(pipeline.budget, RetryBudget)
    assert pipeline.budget.tokens == pytest.approx(1.2)


@each_loop
def test_a_call_that_is_not_idempotent_is_made_once(run: Run) -> None:
    dependency = Dependency(0.5)
    pipeline = Pipeline(Hedge(0.1))

    async def main() -> Any:
        return await pipeline.acall(dependency)

    assert run(main) == 1
    assert dependency.calls == 1


@each_loop
def test_bad_results_race_too(run: Run) -> None:
    answers = ["bad", "good"]

    async def ask() -> str:
        await anyio.sleep(0.1)
        return answers.pop(0)

    pipeline = Pipeline(Hedge(60), failures=Allowlist.of_results(lambda value: value == "bad"))

    assert run(hedged(pipeline, ask)) == "good"


def race_scenario(*plan: float | tuple[float, BaseException], hedge: Callable[[], Hedge]) -> Scenario:
    """A call whose attempts race, so that cancellation meets each moment of a race."""
    dependency = Dependency(*plan)
    breaker, inner, outer = CircuitBreaker(), Bulkhead(5), Bulkhead(5)
    pipeline = Pipeline(outer, hedge(), inner, breaker, Timeout(500.0))

    def check() -> str | None:
        left = dependency.running, inner.in_flight, outer.in_flight, len(asyncio_tasks())
        return None if left == (0, 0, 0, 0) else f"left {left}"

    def asyncio_tasks() -> set[Any]:
        try:
            return asyncio.all_tasks() - {asyncio.current_task()}
        except RuntimeError:
            return set()

    async def call() -> Any:
        return await pipeline.bind(idempotent=True).acall(dependency)

    return Scenario(call=call, check=check)


RACES: dict[str, tuple[Any, ...]] = {
    "the first wins": (0.02, 0.2),
    "a further one wins": (0.2, 0.005),
    "the first fails": ((0.001, ConnectionError()), 0.01),
    "all fail": ((0.02, ConnectionError()), (0.01, ConnectionError())),
}


@pytest.mark.slow
@pytest.mark.parametrize("harness", RUNNERS)
@pytest.mark.parametrize("name", RACES)
@pytest.mark.parametrize("after", [0.0, 0.01])
def test_nothing_is_left_wherever_cancellation_strikes(
    harness: Callable[[Callable[[], Scenario]], Report], name: str, after: float
) -> None:
    report = harness(lambda: race_scenario(*RACES[name], hedge=lambda: Hedge(after, budget=None)))

    report.must_hold()


def test_a_coroutine_that_is_dropped_in_a_race_leaves_nothing_behind() -> None:
    running = 0
    bulkhead, inner = Bulkhead(5), Bulkhead(9)
    pipeline = Pipeline(bulkhead, Hedge(0.0, max_hedges=2), inner)

    async def hang() -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    async def main() -> tuple[int, int, int]:
        coroutine = pipeline.bind(idempotent=True).acall(hang)
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
        await asyncio.sleep(0)
        assert running == 3
        coroutine.close()
        del coroutine
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        return running, bulkhead.in_flight, inner.in_flight

    assert asyncio.run(main()) == (0, 0, 0)


def test_nothing_is_left_after_many_races() -> None:
    """Neither tasks, timers nor exceptions."""
    pipeline = Pipeline(Hedge(0.0, budget=None))

    async def ask() -> None:
        await asyncio.sleep(0)

    async def main() -> tuple[int, int]:
        loop: Any = asyncio.get_running_loop()
        guarded = pipeline.bind(idempotent=True)(ask)
        for _ in range(1000):
            await guarded()
        return len(asyncio.all_tasks()), len([one for one in loop._scheduled if not one.cancelled()])

    assert asyncio.run(main()) == (1, 0)
