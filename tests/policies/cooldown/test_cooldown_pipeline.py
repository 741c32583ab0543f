"""A cooldown in pipelines: hints of integrations, several pipelines, shadow and off, blocks, nothing counted."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from resilience import (
    Allowlist,
    CircuitBreaker,
    Cooldown,
    Ending,
    EndingKind,
    Failure,
    FailureKind,
    Hint,
    Pipeline,
    RateLimitedError,
    UsageError,
)
from resilience._call.entry import aexecute, execute
from resilience._call.running_call import RunningCall
from resilience.events import CooldownStarted, Mode, Queued, Rejected
from resilience.testing import Recorder, VirtualClock
from tests.policies.cooldown.helpers import Busy, asked, paused

BUSY = Allowlist(Busy, when=lambda error: Failure(FailureKind.OVERLOAD, getattr(error, "retry_after", None)))


class HintedCall(RunningCall):
    """The call of an integration that reads hints from responses."""

    __slots__ = ("good",)


def busy(seconds: float) -> None:
    raise Busy(seconds)


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(("remaining", "paused"), [(0, True), (1, False)])
def test_a_hint_with_a_good_response_begins_a_pause(
    clock: VirtualClock, awaited: bool, remaining: int, paused: bool
) -> None:
    cooldown = Cooldown()
    entry, options = Pipeline(cooldown, CircuitBreaker()).entry()

    def answer() -> str:
        call.good = Ending(EndingKind.OK, hint=Hint(remaining, 5.0))
        return "fine"

    async def answer_async() -> str:
        return answer()

    call = HintedCall.make(options, answer_async if awaited else answer, (), {})
    call.good = Ending(EndingKind.OK)

    assert (asyncio.run(aexecute(entry, call)) if awaited else execute(entry, call)) == "fine"
    assert cooldown.active is paused


def test_one_hint_holds_for_all_pipelines_with_the_object(clock: VirtualClock) -> None:
    cooldown = Cooldown(spread=0.0, max_wait=1.0)
    one = Pipeline(cooldown, name="cooled-1", failures=BUSY)
    other = Pipeline(cooldown, CircuitBreaker(), name="cooled-2", failures=BUSY)
    with Recorder() as recorder, pytest.raises(Busy):
        one.call(busy, 30.0)
    with pytest.raises(RateLimitedError) as caught:
        other.call(int)

    assert caught.value.pipeline == "cooled-2"
    assert [event.pipeline for event in recorder.of(CooldownStarted)] == ["cooled-1", "cooled-2"]
    clock.advance(29.5)
    assert other.call(lambda: clock.sleeps) == []
    assert clock.elapsed == 30.0


def test_a_pause_is_no_failure_of_the_breaker(clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    pipeline = Pipeline(Cooldown(max_wait=0), breaker, failures=Allowlist(Busy, when=lambda _: asked(9.0).failure))
    with pytest.raises(Busy):
        pipeline.call(busy, 9.0)
    with pytest.raises(RateLimitedError):
        pipeline.call(int)

    assert (breaker.state, breaker.snapshot()["failures"]) == ("closed", 0)


def test_shadow_mode_reports_and_lets_through(clock: VirtualClock) -> None:
    cooldown = Cooldown(mode="shadow")
    pipeline = Pipeline(cooldown, failures=BUSY, name="cooled-in-shadow")
    with Recorder(pipeline) as recorder:
        with pytest.raises(Busy):
            pipeline.call(busy, 30.0)
        assert pipeline.call(int) == 0
        clock.advance(40.0)
        assert pipeline.call(int) == 0

    assert recorder.of(Rejected) == []
    assert [(event.wait, event.longest, event.mode) for event in recorder.of(Queued)] == [(30, 72, Mode.SHADOW)]
    assert [event.mode for event in recorder.of(CooldownStarted)] == [Mode.SHADOW]
    assert cooldown.snapshot()["queued"] == 0


def test_off_neither_looks_nor_holds_back(clock: VirtualClock) -> None:
    cooldown = Cooldown(mode="off")
    pipeline = Pipeline(cooldown, failures=BUSY)
    with pytest.raises(Busy):
        pipeline.call(busy, 30.0)

    assert not cooldown.active


def test_blocks(clock: VirtualClock) -> None:
    cooldown = Cooldown(spread=0.0)
    with cooldown.calling():
        pass
    cooldown.settle(None, asked(5.0))
    with cooldown.calling():
        assert clock.elapsed == 5.0
    cooldown.settle(None, asked(5.0))

    async def block() -> float:
        async with cooldown.calling():
            return clock.elapsed

    assert asyncio.run(block()) == 10.0
    with pytest.raises(UsageError, match="calling"), cooldown:
        pass


def test_a_copy_is_refused() -> None:
    with pytest.raises(TypeError, match="share the object"):
        copy.copy(Cooldown())


def test_the_policy_of_a_pipeline_is_found_by_its_type() -> None:
    cooldown = paused(0.001)
    pipeline: Pipeline[Any] = Pipeline(cooldown)

    assert pipeline.get(Cooldown) is pipeline["cooldown"] is cooldown
