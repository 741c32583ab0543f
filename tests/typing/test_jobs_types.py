"""What type checkers see of jobs. mypy and pyright read this file; the assertions also run."""

from __future__ import annotations

import asyncio
from typing import assert_type

from resilience import Pipeline, Retry
from resilience.jobs import BatchItem, BatchResult, Failed, apoll, aretry_failed, poll, retry_failed

pipeline = Pipeline(Retry())


def send(batch: list[str]) -> list[int | Failed]:
    return [len(item) if item else Failed("empty") for item in batch]


async def send_async(batch: list[str]) -> list[int | Failed]:
    return send(batch)


def state() -> str:
    return "done"


async def state_async() -> str:
    return "done"


def test_batches() -> None:
    result = retry_failed(["a"], send, pipeline=pipeline)
    assert_type(result, BatchResult[str, int])
    assert_type(result.succeeded, list[BatchItem[str, int]])
    assert_type(result.items[0].result, int | None)
    given: BatchResult[str, int] = BatchResult()
    assert_type(retry_failed(["a"], send, result=given), BatchResult[str, int])
    assert_type(asyncio.run(aretry_failed(["a"], send_async, pipeline=pipeline)), BatchResult[str, int])


def test_polls() -> None:
    assert_type(poll(state, until=lambda one: one.isalpha(), timeout=1.0, pipeline=pipeline), str)
    assert_type(asyncio.run(apoll(state_async, until=str.isalpha, timeout=1.0)), str)
