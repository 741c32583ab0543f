"""Pipelines used by threads, asyncio loops and a trio run at once, and changed while others are made."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

import resilience
from resilience import Pipeline, Retry, RetryBudget, backoff
from resilience.events import RetryScheduled
from tests.support.threads import together
from tests.support.turnstile import Turnstile

CALLS = 300


@pytest.mark.usefixtures("frequent_switches")
def test_one_pipeline_everywhere_at_once() -> None:
    gate = Turnstile(limit=3, room=1000, patience=60.0)
    budget = RetryBudget(capacity=1e6)
    pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), gate, budget=budget, name="everywhere")
    done: list[int] = []

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

    runs: list[Callable[[], object]] = [in_thread] * 4
    runs += [lambda: asyncio.run(main()), lambda: asyncio.run(main()), lambda: trio.run(main)]
    errors = together(*runs)

    assert not errors, "".join(traceback.format_exception(errors[0]))
    assert len(done) == 7 * CALLS
    assert gate.leaked() is None
    assert gate.peak <= 3
    assert len(gate.endings) == 2 * 7 * CALLS
    assert pipeline.snapshot()["in_flight"] == 0
    assert budget.tokens == pytest.approx(1e6 - 7 * CALLS * 0.8, abs=0.2 * 7 * CALLS)


@pytest.mark.usefixtures("frequent_switches")
def test_pipelines_may_be_made_while_others_change_them_all() -> None:
    stop = threading.Event()

    def make() -> None:
        made = 0
        while not stop.is_set() and made < 100:  # all are rewired with each change, so there must not be too many
            made += 1
            Pipeline(Retry(), name=f"made-{threading.get_ident()}-{made}")

    def change() -> None:
        retry = Retry()
        keep = [Pipeline(retry, name=f"kept-{number}") for number in range(20)]
        try:
            for _ in range(20):
                resilience.subscribe(print, events=[RetryScheduled])()
                retry.update(attempts=2)
                resilience.set_mode("enforce")
                assert set(keep) <= set(resilience.pipelines().values())
        finally:
            stop.set()

    assert together(make, make, change) == []
