"""A bulkhead that tasks of asyncio, uvloop and trio share, with each other and with threads."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvloop

from resilience import BulkheadFullError, Pipeline
from resilience._policies.bulkhead import Bulkhead
from resilience._util.finalizers import run_pending
from resilience.testing import virtual_time
from tests.policies.helpers import LONG, admitted, give_back, idle, in_thread, joined
from tests.support.loops import LOOPS, Run
from tests.support.threads import wait_until

on_each_loop = pytest.mark.parametrize("run", LOOPS)


@on_each_loop
def test_tasks_are_served_in_order(run: Run) -> None:
    bulkhead = Bulkhead(1, queue=10, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    order: list[int] = []
    admitted(bulkhead)

    async def work(number: int) -> None:
        assert bulkhead.in_flight == 1
        order.append(number)
        await anyio.lowlevel.checkpoint()

    async def enter(number: int) -> None:
        while bulkhead.queued < number:
            await anyio.lowlevel.checkpoint()
        if number == 8:
            give_back(bulkhead)
        else:
            await pipeline.acall(work, number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(9):
                group.start_soon(enter, number)

    run(main)

    assert order == list(range(8))
    assert idle(bulkhead)


@on_each_loop
def test_tasks_share_a_limit(run: Run) -> None:
    bulkhead = Bulkhead(2, queue=10, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    inside: list[int] = []
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        inside.append(number)
        most = max(most, len(inside))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        inside.remove(number)

    guarded: Callable[[int], Coroutine[Any, Any, None]] = pipeline(work)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(guarded, number)

    run(main)

    assert (most, bulkhead.peak) == (2, 2)
    assert idle(bulkhead)


@on_each_loop
def test_after_1000_timeouts_the_capacity_is_full(run: Run) -> None:
    bulkhead = Bulkhead(3, queue=1000, max_wait=0.5)
    pipeline = Pipeline(bulkhead)
    caught: list[str] = []
    inside: list[int] = []

    async def wait_in_vain() -> None:
        try:
            await pipeline.acall(int)
        except BulkheadFullError as error:
            caught.append(str(error.reason))

    async def meet() -> None:
        inside.append(1)
        while len(inside) < 3:
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(1001):
                group.start_soon(wait_in_vain)
        for _ in range(3):
            give_back(bulkhead)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(pipeline.acall, meet)

    admitted(bulkhead, 3)
    with virtual_time():
        run(main)

    assert sorted(caught) == ["full"] + ["queue_timeout"] * 1000
    assert len(inside) == 3
    assert idle(bulkhead)


@on_each_loop
def test_a_thread_lets_a_task_in_by_raising_the_limit(run: Run) -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)

    def update() -> None:
        wait_until(lambda: bulkhead.queued == 1)
        bulkhead.update(limit=2)

    async def main() -> int:
        thread = in_thread(update)
        try:
            return await pipeline.acall(lambda: 7)
        finally:
            joined(thread)

    assert run(main) == 7
    assert (bulkhead.in_flight, bulkhead.queued, bulkhead.peak) == (1, 0, 2)


@pytest.mark.parametrize("factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_loop_closed_with_waiters_in_it_hands_on(
    factory: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    bulkhead = Bulkhead(1, queue=5, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    admitted(bulkhead)
    loop = factory()
    tasks = [loop.create_task(pipeline.acall(int)) for _ in range(3)]

    loop.call_soon(loop.stop)
    loop.run_forever()
    assert bulkhead.queued == 3
    loop.close()
    served: list[int] = []
    thread = in_thread(lambda: pipeline.call(served.append, 7))
    wait_until(lambda: bulkhead.queued == 4)
    give_back(bulkhead)
    joined(thread)

    assert served == [7]
    assert idle(bulkhead)
    with caplog.at_level(logging.CRITICAL, logger="asyncio"):  # it complains of tasks that never ended
        del tasks
        gc.collect()
        run_pending()
    assert idle(bulkhead)
