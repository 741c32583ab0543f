"""Substitutes for plain and for awaited calls: what they cover, and what they return."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from resilience import (
    Call,
    DeadlineExceededError,
    Ending,
    Pipeline,
    Retry,
    Substitute,
    Timeout,
    backoff,
    current_deadline,
    deadline_after,
)
from resilience.events import CallEnded, FallbackUsed, RetryGivenUp
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import down, hang, raising
from tests.support.loops import Run, uvloop_too
from tests.support.policies import Closed, Instead, Stale

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestSubstitutes:
    def test_a_value(self) -> None:
        pipeline = Pipeline(Instead("other"), Retry(wait=backoff.none()))
        with Recorder(pipeline) as recorder:
            assert pipeline.call(down) == "other"
            assert asyncio.run(pipeline.acall(down)) == "other"
        assert [(one.outcome, one.attempts) for one in recorder.of(CallEnded)] == [("fallback", 3)] * 2
        assert len(recorder.of(FallbackUsed)) == len(recorder.of(RetryGivenUp)) == 2

    def test_rejections_are_covered_and_errors_are_not(self) -> None:
        assert Pipeline(Instead(5), Closed()).call(str) == 5
        with pytest.raises(ValueError, match="mine"):
            Pipeline(Instead(5)).call(raising(ValueError("mine")))
        with pytest.raises(KeyboardInterrupt):
            Pipeline(Instead(5)).call(raising(KeyboardInterrupt()))

    def test_an_awaitable(self) -> None:
        made: list[Any] = []

        async def other() -> str:
            return "awaited"

        def make() -> Any:
            made.append(other())
            return made[-1]

        pipeline = Pipeline(Instead(make))
        assert asyncio.run(pipeline.acall(down)) == "awaited"
        with pytest.raises(TypeError, match="async `replace`"):
            pipeline.call(down)
        assert inspect.getcoroutinestate(made[-1]) == inspect.CORO_CLOSED

    def test_what_it_raises_comes_out(self) -> None:
        pipeline = Pipeline(Instead(raising(KeyError("nothing"))))
        with pytest.raises(KeyError, match="nothing"):
            pipeline.call(down)


class Slow(Substitute[int]):
    def replace(self, call: Call, ending: Ending) -> Any:
        async def compute() -> int:
            return 7

        return compute()


def test_an_awaitable_substitute_is_for_async_calls() -> None:
    pipeline = Pipeline(Slow())
    with pytest.raises(TypeError, match="substitute has an async `replace`"):
        pipeline.call(down)

    assert asyncio.run(pipeline.acall(down)) == 7


def test_a_late_value_is_not_replaced(virtual_clock: VirtualClock) -> None:
    def slow() -> str:
        virtual_clock.advance(1)
        return "late"

    assert Pipeline(Stale(), Timeout(1)).call(slow) == "late"


@uvloop_too
def test_a_deadline_is_replaced(run: Run) -> None:
    async def main() -> None:
        assert await Pipeline(Stale(), Timeout(1)).acall(hang) == "stale"
        with deadline_after(0):
            assert await Pipeline(Stale()).acall(hang) == "stale"

    run(main)


class AsksForEver(Substitute[str]):
    async def replace(self, call: Call, ending: Ending) -> str:
        return await hang()


@uvloop_too
def test_what_a_substitute_awaits_is_cut_too(run: Run) -> None:
    pipeline = Pipeline(Timeout(2, name="total"), AsksForEver(), Timeout(1))

    async def main() -> None:
        before = current_deadline()
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(hang)
        assert caught.value.policy == "total"
        assert current_deadline() == before

    run(main)
