"""The ways to run a job: in a thread, and in a task of asyncio and of trio, each in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import anyio.lowlevel
import pytest

from resilience.jobs import apoll, aretry_failed, poll, retry_failed
from resilience.testing import virtual_time
from tests.support.loops import Run, on_asyncio, on_trio

Way: TypeAlias = "Callable[..., Any]"


def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an async function that calls `function` after one suspension."""

    async def call(*args: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return function(*args)

    return call


def batch_plainly(items: Any, call: Callable[..., Any], **settings: Any) -> Any:
    with virtual_time():
        return retry_failed(items, call, **settings)


def poll_plainly(call: Callable[..., Any], **settings: Any) -> Any:
    with virtual_time():
        return poll(call, **settings)


def _batch(run: Run) -> Way:
    return lambda items, call, **settings: run(lambda: aretry_failed(items, awaited(call), **settings))


def _poll(run: Run) -> Way:
    return lambda call, **settings: run(lambda: apoll(awaited(call), **settings))


NAMES = ["plainly", "asyncio", "trio"]
each_batch = pytest.mark.parametrize("way", [batch_plainly, _batch(on_asyncio), _batch(on_trio)], ids=NAMES)
each_poll = pytest.mark.parametrize("way", [poll_plainly, _poll(on_asyncio), _poll(on_trio)], ids=NAMES)
