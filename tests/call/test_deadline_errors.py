"""Errors, events and log lines for calls whose time ran out, and whether such a call is scored."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
import pytest

from resilience import DeadlineExceededError, Pipeline, RejectedError, Retry, Timeout, deadline_after
from resilience.events import CallEnded, Outcome, TimedOut
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import hang
from tests.support.loops import Run, each_loop, uvloop_too
from tests.support.turnstile import Turnstile

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


@each_loop
def test_a_deadline_that_has_passed_calls_nothing(run: Run) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Retry(3), gate)
    calls: list[int] = []

    async def main() -> None:
        with deadline_after(1):
            await anyio.sleep(2)
            with pytest.raises(
                DeadlineExceededError, match="the caller's deadline passed before the call was made"
            ) as it:
                await pipeline.acall(lambda: calls.append(1))
        assert it.value.unprocessed is True

    with Recorder(pipeline, events=[CallEnded]) as recorder:
        run(main)

    assert calls == []
    assert gate.endings == ["abandoned"]
    assert [(event.outcome, event.attempts) for event in recorder.of(CallEnded)] == [(Outcome.TIMED_OUT, 0)]


def test_a_deadline_that_has_passed_calls_nothing_plainly(virtual_clock: VirtualClock) -> None:
    gate = Turnstile()
    calls: list[int] = []
    with deadline_after(1):
        virtual_clock.advance(1)
        with pytest.raises(DeadlineExceededError) as caught:
            Pipeline(Retry(3), gate).call(lambda: calls.append(1))

    assert (calls, gate.endings, caught.value.unprocessed) == ([], ["abandoned"], True)


@uvloop_too
@pytest.mark.parametrize(("patience", "error"), [(1.0, RejectedError), (10.0, DeadlineExceededError)])
def test_in_a_queue_what_runs_out_first_says_which(run: Run, patience: float, error: type[Exception]) -> None:
    gate = Turnstile(patience=patience)
    assert gate.take()
    pipeline = Pipeline(Timeout(5, name="total"), gate)

    async def main() -> None:
        with pytest.raises(error) as caught:
            await pipeline.acall(hang)
        if isinstance(caught.value, DeadlineExceededError):
            assert str(caught.value) == (
                "the deadline of total (5 s) passed while the call waited for turnstile; nothing was called"
            )
            assert caught.value.unprocessed

    run(main)

    assert len(gate.line) == 0


@uvloop_too
def test_a_caller_in_a_hurry_is_not_scored(run: Run) -> None:
    pipeline = Pipeline(Timeout(1), failures=ConnectionError)

    async def main() -> None:
        with deadline_after(0.005), pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        assert caught.value.scored is False
        with deadline_after(0.5), pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        assert caught.value.scored is True
        with deadline_after(0.5), pytest.raises(DeadlineExceededError) as caught:
            await Pipeline(Retry(1)).acall(hang)
        assert caught.value.scored is False  # nobody says how long it may take

    run(main)


def test_a_late_value_of_a_plain_function_is_returned(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    outer, inner = Turnstile(), Turnstile()
    pipeline = Pipeline(outer, Retry(3), Timeout(1), inner, name="slow")

    def slow() -> str:
        virtual_clock.advance(1)
        return "late"

    with caplog.at_level(logging.WARNING, "resilience"), Recorder(pipeline) as recorder:
        assert pipeline.call(slow) == "late"
        assert pipeline.call(slow) == "late"

    assert (outer.endings, inner.endings) == (["timed_out"] * 2, ["timed_out"] * 2)
    assert [event.late for event in recorder.of(TimedOut)] == [True, True]
    assert [event.outcome for event in recorder.of(CallEnded)] == [Outcome.TIMED_OUT] * 2
    assert len(caplog.records) == 1
    assert "thread=True" in caplog.text
    assert "remaining()" in caplog.text
