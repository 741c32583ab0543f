"""Work that a cancelled asyncio task must not tear: done in a task of its own, which only a cancel scope cancels.

`Task.cancel` goes through every shield of anyio. A client that relies on such a shield for its clean-up, or on anyio's
promise that a wait which is over is not cancelled any more, loses what it was about to give back: httpcore 1.0 loses
places in its pool (encode/httpcore #1093). A cancel scope keeps both promises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from resilience.clock import TIME_IS_UP, ambient


class _Holding:
    """A place where a cancellation waits."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._sheltered = False
        self._wanted = False

    def enter(self) -> None:
        self._sheltered = True

    def leave(self) -> None:
        self._sheltered = False
        if self._wanted:
            self._scope.cancel()

    def cancel(self) -> None:
        self._wanted = True
        if not self._sheltered:
            self._scope.cancel()


async def apart(step: Callable[[_Holding], Awaitable[Any]], dispose: Callable[[Any], Awaitable[None]]) -> Any:
    """Run a step that can shelter some of its moments; a value that comes although it was cancelled is disposed of."""
    scope = anyio.CancelScope()
    holding = _Holding(scope)

    async def work() -> Any:
        with scope:
            return await step(holding)
        return TIME_IS_UP

    task = asyncio.get_running_loop().create_task(work())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        holding.cancel()
        value = await _outcome(task)
        if value is not TIME_IS_UP:
            await finish(lambda: dispose(value))
        raise
    finally:
        del task  # its exception holds this frame


async def finish(step: Callable[[], Awaitable[Any]]) -> None:
    """Run a step to its end, whatever is cancelled meanwhile."""

    async def work() -> None:
        await step()

    task = asyncio.get_running_loop().create_task(work())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await _outcome(task)
        raise
    finally:
        del task


async def _outcome(task: asyncio.Task[Any]) -> Any:
    """Wait for a task, however often this one is cancelled; TIME_IS_UP if nothing came of it."""
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue  # the first one is raised again by whoever waits here
    if task.cancelled() or task.exception() is not None:
        return TIME_IS_UP
    return task.result()


async def by(until: float, value: Awaitable[Any]) -> Any:
    """Await something until that time."""
    with anyio.CancelScope(deadline=anyio.current_time() + until - ambient.monotonic()):
        return await value
    return TIME_IS_UP
