"""Deadlines of a pipeline that is called within another one."""

from __future__ import annotations

import asyncio

import pytest

from resilience import DeadlineExceededError, Pipeline, Retry, Timeout, backoff, deadline_after
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import hang
from tests.support.loops import Run, each_loop, uncancelled, uvloop_too
from tests.support.turnstile import Turnstile


@uvloop_too
def test_a_pipeline_further_in_that_obeys_our_deadline_counts_as_ours(run: Run) -> None:
    gate = Turnstile()
    outer = Pipeline(gate, Timeout(1, name="outer"))
    inner = Pipeline(Retry(1))

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await outer.acall(inner.acall, hang)
        assert caught.value.policy == "outer"
        assert caught.value.scored
        assert uncancelled()

    run(main)

    assert gate.endings == ["timed_out"]


def test_the_same_plainly(virtual_clock: VirtualClock) -> None:
    gate = Turnstile()
    outer = Pipeline(gate, Timeout(1, name="outer"))
    inner = Pipeline(Retry(3, wait=backoff.fixed(0.4)))
    calls: list[int] = []

    def use() -> None:
        calls.append(1)
        virtual_clock.advance(1)
        inner.call(calls.append, 2)

    with pytest.raises(DeadlineExceededError) as caught:
        outer.call(use)

    assert calls == [1]
    assert (caught.value.policy, caught.value.unprocessed) == ("outer", False)
    assert gate.endings == ["timed_out"]


@each_loop
def test_an_error_of_an_inner_pipeline_before_our_deadline_is_its_own(run: Run) -> None:
    inner = Pipeline(Timeout(1, name="inner"))
    outer = Pipeline(Timeout(2, name="outer"))

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await outer.acall(inner.acall, hang)
        assert caught.value.policy == "inner"

    run(main)


def test_the_same_of_a_plain_inner_pipeline(virtual_clock: VirtualClock) -> None:
    inner = Pipeline(Retry(1))

    def use() -> None:
        with deadline_after(0):
            inner.call(print)

    with pytest.raises(DeadlineExceededError) as caught:
        Pipeline(Timeout(2)).call(use)

    assert caught.value.policy == ""


def test_who_swallows_the_cut_of_the_inner_call_is_cut_all_the_same() -> None:
    inner, outer = Pipeline(Retry(1)), Pipeline(Timeout(1))

    async def stubborn() -> None:
        with pytest.raises(DeadlineExceededError):
            await inner.acall(hang)
        await hang()

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await outer.acall(stubborn)

    with virtual_time() as clock:
        asyncio.run(main())

    assert 1 <= clock.elapsed <= 1.01
