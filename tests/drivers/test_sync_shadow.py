"""Timeouts, retries and substitutes in shadow mode: they report what they would do, and change nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import Mode, Pipeline, Retry, RetryBudget, Timeout, remaining
from resilience.events import CallEnded, Event, FallbackUsed, Outcome, TimedOut
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.functions import down
from tests.support.loops import Run, each_loop
from tests.support.policies import Stale
from tests.support.ways import Make, each_way

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines named")


def test_shadow_reports_what_it_would_cut(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Timeout(1, mode="shadow"))
    seen: list[float | None] = []

    def slow() -> str:
        seen.append(remaining())
        virtual_clock.advance(1)
        return "late"

    with Recorder(pipeline) as recorder:
        assert pipeline.call(slow) == "late"
        assert pipeline.call(lambda: "quick") == "quick"

    assert seen == [None]
    assert [(event.mode, event.timeout) for event in recorder.of(TimedOut)] == [("shadow", 1.0)]
    assert [event.outcome for event in recorder.of(CallEnded)] == [Outcome.OK] * 2


@each_loop
def test_shadow_reports_it_of_awaited_calls(run: Run) -> None:
    pipeline = Pipeline(Timeout(1, mode="shadow"))

    async def main() -> None:
        await pipeline.acall(anyio.sleep, 2)

    with Recorder(pipeline, events=[TimedOut]) as recorder:
        run(main)

    assert [event.mode for event in recorder.of(TimedOut)] == ["shadow"]


def test_a_shadow_timeout_tells_nobody_of_a_coroutine_that_is_dropped() -> None:
    pipeline: Pipeline[Any] = Pipeline(Timeout(1, mode="shadow"), name="dropped-in-the-shadow")
    heard: list[Event] = []

    class Never:
        def __await__(self) -> Any:
            yield

    async def hang() -> None:
        await Never()

    with virtual_time() as clock, pipeline.subscribe(heard.append, events=[TimedOut]):
        coroutine = pipeline.acall(hang)
        coroutine.send(None)
        clock.advance(2)
        coroutine.close()

    assert heard == []


@each_way
def test_a_shadow_substitute_reports_what_it_covers_only(make: Make) -> None:
    pipeline = Pipeline(Stale(mode="shadow"))

    with Recorder(pipeline, events=[FallbackUsed]) as recorder:
        with pytest.raises(ConnectionError):
            make(pipeline, down)
        with pytest.raises(ValueError, match="nobody listed"):
            make(pipeline, lambda: int("nobody listed"))

    assert len(recorder.events) == 1


@each_way
def test_a_retry_in_shadow_pays_for_successes(make: Make) -> None:
    pipeline = Pipeline(Retry(mode="shadow"))
    assert isinstance(pipeline.budget, RetryBudget)
    while pipeline.budget.withdraw():
        pass

    make(pipeline, lambda: "fine")

    assert pipeline.budget.tokens == pytest.approx(0.2)


def test_a_substitute_in_shadow_mode_says_what_it_would_do() -> None:
    pipeline = Pipeline(Stale(mode="shadow"))

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await pipeline.acall(down)

    with Recorder(pipeline) as recorder:
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        asyncio.run(main())
        with pytest.raises(ValueError, match="nobody listed this"):
            pipeline.call(int, "nobody listed this")

    assert [event.mode for event in recorder.of(FallbackUsed)] == [Mode.SHADOW, Mode.SHADOW]
