"""How asyncio tells a cut of our own from a cancellation or a timeout from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resilience import DeadlineExceededError, Pipeline, Timeout
from resilience._runtime import asyncio_timer
from resilience.testing import virtual_time
from tests.support.functions import AppError, hang
from tests.support.loops import on_asyncio, uncancelled
from tests.support.turnstile import Turnstile


def test_a_native_cancellation_stays_one() -> None:
    pipeline = Pipeline(Timeout(10))

    async def main() -> None:
        task = asyncio.ensure_future(pipeline.acall(hang))
        await asyncio.sleep(1)
        task.cancel("shutting down")
        with pytest.raises(asyncio.CancelledError, match="shutting down"):
            await task
        assert task.cancelling() == 1

    on_asyncio(main)


def test_an_outer_asyncio_timeout_and_ours_in_one_tick() -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(1), gate)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pipeline.acall(hang)
        assert uncancelled()
        await asyncio.sleep(0)

    on_asyncio(main)


@pytest.mark.parametrize("ours_first", [True, False])
def test_outside_cancellation_in_the_tick_of_our_cut_wins(ours_first: bool) -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(1), gate)

    async def main() -> None:
        task = asyncio.ensure_future(pipeline.acall(hang))
        await asyncio.sleep(0.5)
        if ours_first:
            fire = asyncio_timer.DeadlineCancel.fire

            def both(cut: Any) -> None:
                fire(cut)
                task.cancel()
        else:
            fire = asyncio_timer.DeadlineCancel.fire

            def both(cut: Any) -> None:
                task.cancel()
                fire(cut)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio_timer.DeadlineCancel, "fire", both)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert task.cancelling() == 1

    on_asyncio(main)

    assert gate.endings == ["abandoned"]


def test_a_cut_through_asyncios_task_group() -> None:
    pipeline = Pipeline(Timeout(1))

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise AppError

    async def family() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    async def main() -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await pipeline.acall(family)
        assert isinstance(caught.value.__cause__, BaseExceptionGroup)
        assert uncancelled()
        await asyncio.sleep(0)

    on_asyncio(main)


def test_a_cancellation_that_the_function_converts_in_a_tie_is_not_ours() -> None:
    calls: list[int] = []

    async def converts() -> None:
        calls.append(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError("converted") from None

    async def main() -> None:
        task = asyncio.ensure_future(Pipeline(Timeout(1)).acall(converts))
        await asyncio.sleep(0.5)
        fire = asyncio_timer.DeadlineCancel.fire

        def both(cut: Any) -> None:
            fire(cut)
            task.cancel()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio_timer.DeadlineCancel, "fire", both)
            with pytest.raises(KeyError):
                await task

    with virtual_time():
        asyncio.run(main())

    assert calls == [1]
