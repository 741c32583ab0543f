"""Tasks and coroutines of asyncio that are dropped with their loop, or closed elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

from resilience import Pipeline, Retry, Timeout, backoff
from tests.support.functions import down, hang
from tests.support.turnstile import Turnstile


def test_a_task_dropped_with_its_loop_gives_its_permit_back() -> None:
    gate = Turnstile()
    pipeline = Pipeline(Timeout(60), gate)
    loop = asyncio.new_event_loop()
    task: Any = loop.create_task(pipeline.acall(hang))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert gate.in_flight == 1
    loop.close()
    task._log_destroy_pending = False
    del loop, task
    gc.collect()

    assert gate.in_flight == 0


def test_a_coroutine_closed_in_another_context_closes_quietly() -> None:
    pipeline = Pipeline(Timeout(60))
    loop = asyncio.new_event_loop()
    task: Any = loop.create_task(pipeline.acall(hang))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    task._log_destroy_pending = False

    contextvars.Context().run(task.get_coro().close)

    assert pipeline.snapshot()["in_flight"] == 0


def test_a_task_dropped_in_a_retry_wait_with_its_loop_goes() -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.fixed(60)))
    loop = asyncio.new_event_loop()
    task = loop.create_task(pipeline.acall(down))
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    assert pipeline.snapshot()["in_flight"] == 1
    silence: Any = task
    silence._log_destroy_pending = False
    del task, silence

    pipeline.drain(0)
    gc.collect()

    assert pipeline.drain(0) is True
