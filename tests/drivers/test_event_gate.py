"""The events that tell how attempts and calls end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
    deadline_after,
)
from resilience.events import AttemptEnded, CallEnded, Outcome, Rejected
from resilience.testing import Recorder, virtual_time
from tests.support.functions import Failing, Flaky, down, raising
from tests.support.policies import Closed, Streaming
from tests.support.turnstile import Turnstile

NOW = backoff.none()
# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestOutcomes:
    @pytest.mark.parametrize(
        ("error", "outcome"),
        [
            (ValueError(), "error"),
            (ConnectionError(), "failed"),
            (DeadlineExceededError(), "timed_out"),
            (LookupError(), "ok"),
            (KeyboardInterrupt(), "abandoned"),
            (asyncio.CancelledError(), "abandoned"),
        ],
    )
    def test_raised(self, error: BaseException, outcome: str) -> None:
        pipeline = Pipeline[Any](failures=Allowlist(ConnectionError, answers=(LookupError,)))
        with Recorder(pipeline) as recorder:
            with pytest.raises(type(error)):
                pipeline.call(raising(error))
            with pytest.raises(type(error)):
                pipeline.acall(raising(error)).send(None)
        assert [(one.outcome, one.attempts) for one in recorder.of(CallEnded)] == [(outcome, 1)] * 2
        assert [(one.outcome, one.attempt) for one in recorder.of(AttemptEnded)] == [(outcome, 1)] * 2

    def test_after_a_retry(self) -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(2)))
        with virtual_time(), Recorder(pipeline) as recorder:
            pipeline.call(Flaky())
        assert [(one.outcome, one.attempt) for one in recorder.of(AttemptEnded)] == [("failed", 1), ("ok", 2)]
        (event,) = recorder.of(CallEnded)
        assert (event.outcome, event.attempts) == ("ok", 2)
        assert event.elapsed == pytest.approx(2)

    @pytest.mark.parametrize("expired", [True, False], ids=["at entry", "in a queue"])
    def test_a_deadline_that_passes_before_the_call(self, expired: bool) -> None:
        pipeline = Pipeline(Timeout(1.0), Bulkhead(1, queue=1, max_wait=10.0), name="late")
        with (
            virtual_time(),
            Recorder(pipeline) as recorder,
            pipeline.get(Bulkhead),
            deadline_after(0.0 if expired else 5.0),
        ):
            with pytest.raises(DeadlineExceededError):
                pipeline.call(int)
            with pytest.raises(DeadlineExceededError):
                asyncio.run(pipeline.acall(int))
        assert recorder.of(AttemptEnded) == []
        assert [(one.outcome, one.attempts) for one in recorder.of(CallEnded)] == [("timed_out", 0)] * 2

    def test_rejected(self) -> None:
        pipeline = Pipeline(Closed(), name="shut")
        with Recorder(pipeline) as recorder:
            with pytest.raises(RejectedError):
                pipeline.call(int)
            with pytest.raises(RejectedError):
                asyncio.run(pipeline.acall(int))
        assert recorder.of(AttemptEnded) == []
        assert [(one.outcome, one.attempts) for one in recorder.of(CallEnded)] == [("rejected", 0)] * 2
        event = recorder.of(Rejected)[0]
        assert (event.pipeline, event.policy, event.reason, event.retry_after) == ("shut", "closed", "isolated", 3.0)

    def test_bad_results(self) -> None:
        pipeline = Pipeline[Any](failures=Allowlist.of_results(lambda result: result == 503))
        with Recorder(pipeline) as recorder:
            assert pipeline.call(int, 503) == 503
            assert pipeline.call(int, 200) == 200
        assert [one.outcome for one in recorder.of(CallEnded)] == ["failed", "ok"]


def waiting_between_attempts() -> Pipeline[Any]:
    return Pipeline(Retry(3, wait=backoff.fixed(60)))


def waiting_in_a_queue() -> Pipeline[Any]:
    gate = Turnstile()
    assert gate.take()
    return Pipeline(gate)


@pytest.mark.parametrize(("make", "attempts"), [(waiting_between_attempts, 1), (waiting_in_a_queue, 0)])
def test_a_cancelled_call_ends_with_the_attempts_it_made(make: Callable[[], Pipeline[Any]], attempts: int) -> None:
    pipeline = make()

    async def main() -> None:
        task = asyncio.ensure_future(pipeline.acall(down))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with virtual_time(), Recorder(pipeline, events=[CallEnded]) as recorder:
        asyncio.run(main())

    assert [(event.outcome, event.attempts) for event in recorder.of(CallEnded)] == [(Outcome.ABANDONED, attempts)]


def test_a_call_refused_while_draining_has_an_end() -> None:
    pipeline = Pipeline(Retry())
    pipeline.drain(0)

    async def main() -> None:
        with pytest.raises(RejectedError):
            await pipeline.acall(down)

    with Recorder(pipeline) as recorder:
        with pytest.raises(RejectedError):
            pipeline.call(down)
        asyncio.run(main())

    ends = [(event.outcome, event.attempts) for event in recorder.of(CallEnded)]
    assert ends == [(Outcome.REJECTED, 0), (Outcome.REJECTED, 0)]


def test_an_inner_pipeline_tells_of_its_own_attempts() -> None:
    inner = Pipeline(Retry(1))
    outer = Pipeline(Retry(2, wait=NOW), inner)

    with Recorder(inner) as within, Recorder(outer) as without, pytest.raises(ConnectionError):
        outer.call(Failing())

    assert [event.attempts for event in within.of(CallEnded)] == [1, 1]
    assert [event.attempts for event in without.of(CallEnded)] == [2]


def test_a_stream_that_is_dropped_is_settled_without_a_cyclic_collection() -> None:
    gate = Streaming()
    pipeline = Pipeline[Any](gate)
    gc.disable()
    try:
        with Recorder(pipeline) as recorder:
            pipeline.bind(operation="dropped").call(int)
            gate.left.clear()
            pipeline.call(int)  # a finalizer leaves the events to it
    finally:
        gc.enable()

    (attempt,), (call,) = recorder.of(AttemptEnded), recorder.of(CallEnded)
    assert (attempt.operation, attempt.outcome) == ("dropped", Outcome.ABANDONED)
    assert (call.operation, call.outcome) == ("dropped", Outcome.ABANDONED)
