"""One pipeline, used at once by threads, asyncio loops and a trio run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from resilience import Pipeline, Retry, RetryBudget, backoff
from tests.support.turnstile import Turnstile

CALLS = 300


def test_one_pipeline_everywhere_at_once() -> None:
    gate = Turnstile(limit=3, room=1000, patience=60.0)
    budget = RetryBudget(capacity=1e6)
    pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), gate, budget=budget, name="everywhere")
    done: list[int] = []
    errors: list[BaseException] = []

    def flaky(state: list[int]) -> int:
        state.append(1)
        if len(state) == 1:
            raise ConnectionError
        done.append(1)
        return 7

    def in_thread() -> None:
        for _ in range(CALLS):
            assert pipeline.call(flaky, []) == 7

    async def task() -> None:
        for _ in range(CALLS // 4):
            state: list[int] = []

            async def fetch(state: list[int] = state) -> int:
                await anyio.lowlevel.checkpoint()
                return flaky(state)

            assert await pipeline.acall(fetch) == 7

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(task)

    def guarded(run: Callable[[], object]) -> Callable[[], None]:
        def target() -> None:
            try:
                run()
            except BaseException as error:
                errors.append(error)

        return target

    runs: list[Callable[[], object]] = [in_thread] * 4
    runs += [lambda: asyncio.run(main()), lambda: asyncio.run(main()), lambda: trio.run(main)]
    threads = [threading.Thread(target=guarded(run)) for run in runs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)

    assert not errors, "".join(traceback.format_exception(errors[0]))
    assert len(done) == 7 * CALLS
    assert gate.leaked() is None
    assert gate.peak <= 3
    assert len(gate.endings) == 2 * 7 * CALLS
    assert pipeline.snapshot()["in_flight"] == 0
    assert budget.tokens == pytest.approx(1e6 - 7 * CALLS * 0.8, abs=0.2 * 7 * CALLS)


def test_ctrl_c_while_parked_gives_the_place_back() -> None:
    gate = Turnstile(patience=60.0)
    gate.take()
    pipeline: Pipeline[Any] = Pipeline(gate)

    def interrupt() -> None:
        while len(gate.line) == 0:
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(int)
    thread.join()

    assert len(gate.line) == 0
    assert gate.in_flight == 1
    assert pipeline.snapshot()["in_flight"] == 0
