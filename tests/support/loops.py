"""Run an async function on asyncio, uvloop or trio, in virtual or in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import trio
import uvloop

from resilience.testing import virtual_time

Main: TypeAlias = "Callable[[], Awaitable[Any]]"
Run: TypeAlias = "Callable[[Main], Any]"


def on_asyncio(main: Main) -> Any:
    """Run in virtual time."""

    async def run() -> Any:
        return await main()

    with virtual_time():
        return asyncio.run(run())


def on_uvloop(main: Main) -> Any:
    """Run with the library's own waits in virtual time."""

    async def run() -> Any:
        return await main()

    with virtual_time(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def on_trio(main: Main) -> Any:
    """Run in virtual time."""
    with virtual_time() as clock:
        return trio.run(main, clock=clock.trio())


each_loop = pytest.mark.parametrize("run", [on_asyncio, on_trio])
uvloop_too = pytest.mark.parametrize("run", [on_asyncio, on_uvloop, on_trio])  # only our own waits are virtual there


def run_asyncio(main: Callable[[], Any]) -> Any:
    """Run in whatever time is in force."""
    return asyncio.run(main())


def run_uvloop(main: Callable[[], Any]) -> Any:
    """Run in whatever time is in force."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def run_trio(main: Callable[[], Any]) -> Any:
    """Run in whatever time is in force."""
    return trio.run(main)


LOOPS = [run_asyncio, run_trio, run_uvloop]


def uncancelled() -> bool:
    """Whether the running task has no cancellation left over."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return True
    return task is None or task.cancelling() == 0
