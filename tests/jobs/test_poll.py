"""Polling until a job is done, plainly and in tasks."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    HTTP_FAILURES,
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    RetryBudget,
    Timeout,
    UsageError,
    backoff,
    deadline_after,
)
from resilience._util.clock import clock
from resilience.jobs import PollTimeoutError, apoll, poll
from resilience.testing import virtual_time
from tests.jobs.ways import Way, each_poll
from tests.support.cancellation import RUNNERS, Report, Scenario
from tests.support.functions import AppError

SECOND = backoff.fixed(1.0)


class Job:
    """A job whose state is asked for: exceptions are raised, everything else is returned."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.at: list[float] = []

    def __call__(self) -> Any:
        self.at.append(clock.monotonic())
        outcome = self.outcomes[0] if len(self.outcomes) == 1 else self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def waits(self) -> list[float]:
        return [round(later - at, 3) for at, later in zip(self.at, self.at[1:], strict=False)]


def done(state: str) -> bool:
    return state == "done"


def response(status: int, **headers: str) -> Any:
    return SimpleNamespace(
        status_code=status, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def is_ok(answer: Any) -> bool:
    return bool(answer.status_code == 200)


@each_poll
def test_the_state_that_is_final_is_returned(way: Way) -> None:
    job = Job("queued", "running", "done")

    assert way(job, until=done, timeout=60.0, wait=SECOND) == "done"
    assert job.waits == [1.0, 1.0]


@each_poll
def test_by_default_the_waits_grow(way: Way) -> None:
    job = Job("running")

    with pytest.raises(PollTimeoutError):
        way(job, until=done, timeout=200.0)

    for number, wait in enumerate(job.waits):
        mean = min(30.0, 1.5**number)
        assert 0.75 * mean <= wait <= min(30.0, 1.25 * mean) + 0.001
    assert job.waits[-1] > 20.0


@each_poll
def test_the_retry_after_of_a_response_is_the_wait(way: Way) -> None:
    answers = [response(202, Retry_After="10"), response(202, Retry_After="0"), response(202), response(200)]
    job = Job(*answers)

    assert way(job, until=is_ok, timeout=60.0, wait=SECOND) is answers[-1]
    hinted, *rest = job.waits
    assert 10.0 <= hinted <= 12.0
    assert rest == [1.0, 1.0]


@each_poll
def test_polls_may_follow_at_once(way: Way) -> None:
    job = Job("queued", "running", "done")

    assert way(job, until=done, timeout=60.0, wait=backoff.none()) == "done"
    assert job.waits == [0.0, 0.0]


@each_poll
@pytest.mark.parametrize("hint", [5.0, None, -1.0, float("nan")])
def test_a_hint_may_be_in_the_state(way: Way, hint: float | None) -> None:
    job = Job({"next": hint}, {"next": None, "done": True})

    way(job, until=lambda state: "done" in state, timeout=60.0, wait=SECOND, hint=lambda state: state["next"])

    (wait,) = job.waits
    assert (5.0 <= wait <= 6.0) if hint == 5.0 else wait == 1.0


@each_poll
def test_the_least_hint_is_a_hundredth_of_a_second(way: Way) -> None:
    job = Job("busy", "busy", "done")

    way(job, until=done, timeout=60.0, hint=lambda state: 1e-9)

    assert all(0.01 <= wait <= 0.0121 for wait in job.waits)


@each_poll
def test_calls_that_were_rejected_are_no_polls(way: Way) -> None:
    with Bulkhead(1) as bulkhead, pytest.raises(PollTimeoutError, match="was called 0 times") as caught:
        way(Job("busy"), until=done, timeout=10.0, wait=SECOND, pipeline=bulkhead)
    assert caught.value.polls == 0

    with pytest.raises(PollTimeoutError, match="was called 0 times"):
        way(Job("busy"), until=done, timeout=0.0)


@each_poll
def test_failures_do_not_end_the_poll(way: Way) -> None:
    job = Job(ConnectionError(), TimeoutError(), "running", ConnectionResetError(), "done")

    assert way(job, until=done, timeout=60.0, wait=SECOND) == "done"
    assert job.waits == [1.0] * 4


@each_poll
def test_bad_results_are_no_states(way: Way) -> None:
    busy = response(503, Retry_After="8")
    job = Job(busy, response(202), response(200))
    pipeline = Pipeline(Retry(2, budget=RetryBudget(initial=0)), failures=HTTP_FAILURES)
    asked: list[int] = []

    def until(answer: Any) -> bool:
        asked.append(answer.status_code)
        return is_ok(answer)

    assert way(job, until=until, timeout=60.0, wait=SECOND, pipeline=pipeline).status_code == 200
    assert asked == [202, 200]
    assert 8.0 <= job.waits[0] <= 9.6


@each_poll
def test_a_rejection_waits_and_asks_again(way: Way) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, open_for=6.0, max_open_for=6.0)
    job = Job(ConnectionError(), "done")

    assert way(job, until=done, timeout=60.0, wait=SECOND, pipeline=Pipeline(breaker)) == "done"
    (wait,) = job.waits
    assert 4.8 <= wait <= 9.0


@each_poll
def test_a_predicate_that_fails_lists_nothing(way: Way) -> None:
    def broken(error: Exception) -> bool:
        raise KeyError

    with pytest.raises(ConnectionError):
        way(Job(ConnectionError()), until=done, timeout=60.0, pipeline=Pipeline(Timeout(5.0), failures=broken))


@each_poll
def test_other_exceptions_come_out(way: Way) -> None:
    job = Job("running", AppError("gone"))

    with pytest.raises(AppError, match="gone"):
        way(job, until=done, timeout=60.0)
    assert len(job.at) == 2


@each_poll
def test_an_error_of_until_comes_out(way: Way) -> None:
    with pytest.raises(KeyError):
        way(Job({}), until=lambda state: state["status"] == "done", timeout=60.0)


@each_poll
def test_the_deadline_is_told_with_the_last_state(way: Way) -> None:
    job = Job("queued", "running")

    with pytest.raises(
        DeadlineExceededError, match=r"was called 3 times in 4 s, .* the next wait, of 2 s, would"
    ) as caught:
        way(job, until=done, timeout=5.0, wait=backoff.fixed(2.0))

    error = caught.value
    assert isinstance(error, PollTimeoutError)
    assert (error.last_state, error.polls, error.__cause__) == ("running", 3, None)
    assert error.__notes__ == ["resilience: the last state was 'running'"]
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.last_state, copied.polls) == (str(error), "running", 3)


@each_poll
@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ({"token": "secret"}, "an object of type dict"),
        (response(202), "an object of type SimpleNamespace with status 202"),
        ("x" * 101, "an object of type str"),
        (7, "7"),
    ],
)
def test_a_state_that_may_be_confidential_is_not_shown(way: Way, state: Any, shown: str) -> None:
    with pytest.raises(PollTimeoutError) as caught:
        way(Job(state), until=lambda state: False, timeout=1.0, wait=SECOND)

    assert caught.value.__notes__ == [f"resilience: the last state was {shown}"]
    assert caught.value.last_state == state


@each_poll
def test_the_failure_of_the_last_call_is_the_cause(way: Way) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()

    with pytest.raises(PollTimeoutError) as caught:
        way(Job("done"), until=done, timeout=3.0, wait=SECOND, pipeline=Pipeline(breaker))

    assert isinstance(caught.value.__cause__, CircuitOpenError)
    assert caught.value.last_state is None


@each_poll
def test_an_attempt_that_is_cut_does_not_end_the_poll(way: Way) -> None:
    calls: list[int] = []

    def slow() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise DeadlineExceededError
        return "done"

    assert way(slow, until=done, timeout=60.0, pipeline=Pipeline(Timeout(1.0))) == "done"


@each_poll
def test_a_drain_ends_the_poll_while_it_waits(way: Way) -> None:
    pipeline = Pipeline(Timeout(5.0))
    job = Job("running")

    def ask() -> str:
        pipeline.drain(0.0)
        state: str = job()
        return state

    with pytest.raises(RejectedError, match="is being drained"):
        way(ask, until=done, timeout=600.0, wait=backoff.fixed(60.0), pipeline=pipeline)
    assert pipeline.snapshot()["in_flight"] == 0
    assert len(job.at) == 1

    with pytest.raises(RejectedError, match="is being drained"):
        way(ask, until=done, timeout=600.0, pipeline=pipeline)
    assert len(job.at) == 1


def test_the_deadline_of_the_caller_holds() -> None:
    with virtual_time(), deadline_after(3.0), pytest.raises(PollTimeoutError):
        poll(Job("running"), until=done, timeout=600.0, wait=SECOND)


def test_the_deadline_cuts_an_awaited_call() -> None:
    async def hang() -> str:
        await anyio.Event().wait()
        return "never"

    async def main() -> None:
        with pytest.raises(PollTimeoutError, match="the deadline passed") as caught:
            await apoll(hang, until=done, timeout=3.0)
        assert isinstance(caught.value.__cause__, DeadlineExceededError)

    with virtual_time():
        asyncio.run(main())


def test_a_cancellation_that_the_call_turns_into_a_failure_ends_the_poll() -> None:
    async def call() -> str:
        try:
            await anyio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError from None
        return "never"

    async def main() -> None:
        task = asyncio.create_task(apoll(call, until=done, timeout=60.0))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(ConnectionError):
            await task

    with virtual_time():
        asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"timeout": -1}, ValueError, "timeout must be a number >= 0"),
        ({"timeout": None}, TypeError, "timeout must be a number >= 0 and <= 1e"),
        ({"timeout": float("inf")}, ValueError, "timeout must be a number >= 0"),
        ({"timeout": 1.0, "pipeline": 5}, TypeError, "pipeline must be a Pipeline or a policy, not 5"),
        ({"timeout": 1.0, "wait": 3}, TypeError, "wait must be a backoff"),
        ({"timeout": 1.0, "wait": lambda state: 1.0}, TypeError, "wait must be a backoff"),
        ({"timeout": 1.0, "until": "done"}, TypeError, "until must be a function"),
        ({"timeout": 1.0, "hint": 3.0}, TypeError, "hint must be a function"),
    ],
)
def test_settings_are_validated(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        poll(Job("done"), **{"until": done, **settings})


def test_an_async_until_is_refused() -> None:
    async def later(state: str) -> bool:
        return True

    unusable: Any = later
    with pytest.raises(UsageError, match="until must be a plain function"):
        poll(Job("done"), until=unusable, timeout=1.0)


@pytest.mark.parametrize("run", RUNNERS)
def test_cancellation_at_any_point_leaves_nothing_behind(run: Callable[[Callable[[], Scenario]], Report]) -> None:
    def scenario() -> Scenario:
        pipeline = Pipeline(Timeout(9.0))
        job = Job("running", ConnectionError(), "running", "done")

        async def call() -> Any:
            await anyio.lowlevel.checkpoint()
            return job()

        def check() -> str | None:
            return "a call is still counted" if pipeline.snapshot()["in_flight"] else None

        return Scenario(lambda: apoll(call, until=done, timeout=60.0, wait=SECOND, pipeline=pipeline), check)

    with virtual_time():
        report = run(scenario)

    report.must_hold()
    assert report.visited >= 5
