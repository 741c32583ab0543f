"""The functions of asyncio, anyio and trio that run others on threads: no virtual time passes while these work."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeAlias

import anyio.to_thread

from resilience._util.clock import clock
from resilience.testing._turns import Job, JumpingClock

Function: TypeAlias = "Callable[..., Any]"
_originals: dict[tuple[object, str], Function] = {}


def watch_threads(watch: bool) -> None:
    """Replace the functions by ones that tell the clock what works on threads, or restore them."""
    for (owner, name), original in list(_originals.items()):
        if not watch:
            setattr(owner, name, original)
            del _originals[owner, name]
    for owner, name, watched in _functions() if watch else []:
        if (owner, name) not in _originals:
            _originals[owner, name] = getattr(owner, name)
            setattr(owner, name, watched(_originals[owner, name]))


def _functions() -> list[tuple[object, str, Callable[[Function], Function]]]:
    """Return the owner and the name of each function, and how it is replaced."""
    trio = sys.modules.get("trio.to_thread")
    return [
        (asyncio.BaseEventLoop, "run_in_executor", watched_executor),
        (asyncio, "to_thread", watched),  # loops of other packages have executors of their own
        (asyncio.threads, "to_thread", watched),
        (anyio.to_thread, "run_sync", watched),
        *([] if trio is None else [(trio, "run_sync", watched)]),
    ]


def watched(to_thread: Function) -> Function:
    """Return an async function that calls another one by `to_thread`, and tells the clock when it works."""

    @functools.wraps(to_thread)
    async def run(*args: Any, **kwargs: Any) -> Any:
        virtual = clock.time
        if not args or not isinstance(virtual, JumpingClock):
            return await to_thread(*args, **kwargs)
        job = virtual.add(Job())
        try:
            return await to_thread(job.wrap(args[0]), *args[1:], **kwargs)
        finally:
            virtual.finish(job)

    return run


def watched_executor(run_in_executor: Function) -> Function:
    """Return a method of event loops as `run_in_executor`, which tells the clock when the executor works."""

    @functools.wraps(run_in_executor)
    def run(loop: object, executor: object, func: Function, *args: Any) -> Any:
        virtual = clock.time
        if not isinstance(virtual, JumpingClock):
            return run_in_executor(loop, executor, func, *args)
        job = virtual.add(Job())
        work = func if isinstance(executor, ProcessPoolExecutor) else job.wrap(func)  # that one has to be picklable
        future: asyncio.Future[Any] = run_in_executor(loop, executor, work, *args)
        future.add_done_callback(lambda _: virtual.finish(job))
        return future

    return run
