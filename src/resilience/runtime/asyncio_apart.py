"""Work that a cancelled asyncio task must not tear: done in a task of its own, which only a cancel scope cancels.

`Task.cancel` goes through every shield of anyio. A client that relies on such a shield for its clean-up, or on anyio's
promise that a wait which is over is not cancelled any more, loses what it was about to give back: httpcore 1.0 loses
places in its pool (encode/httpcore #1093). A cancel scope keeps both promises.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from resilience.clock import TIME_IS_UP, ambient
from resilience.runtime import Shelter

_left: set[asyncio.Task[Any]] = set()
"""Those that nobody waits for; a loop keeps its tasks only weakly."""


async def apart(step: Callable[[Shelter], Awaitable[Any]], dispose: Callable[[Any], Awaitable[None]]) -> Any:
    """Run a step in a task of its own: see `resilience.runtime.apart`."""
    scope = anyio.CancelScope()
    shelter = Shelter(scope.cancel)

    async def work() -> Any:
        value: Any = TIME_IS_UP
        with scope:
            value = await step(shelter)
        if shelter.wanted and value is not TIME_IS_UP:
            await dispose(value)
        return value

    task = asyncio.get_running_loop().create_task(work())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.done():
            value = _outcome(task)
            if value is not TIME_IS_UP:
                await finish(lambda: dispose(value))
        elif shelter.cancel():
            await _over(task)
        else:
            _left.add(task)
            task.add_done_callback(_forget)
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
        await _over(task)
        raise
    finally:
        del task


async def _over(task: asyncio.Task[Any]) -> None:
    """Wait for a task, however often this one is cancelled: the first cancellation is raised by who waits here."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    _outcome(task)


def _outcome(task: asyncio.Task[Any]) -> Any:
    """Return what came of a task; TIME_IS_UP for nothing. What it raised has been seen then."""
    return TIME_IS_UP if task.cancelled() or task.exception() is not None else task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    _outcome(task)


async def by(until: float, value: Awaitable[Any]) -> Any:
    """Await something until that time."""
    with anyio.CancelScope(deadline=anyio.current_time() + until - ambient.monotonic()):
        return await value
    return TIME_IS_UP
