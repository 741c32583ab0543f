"""Waiting and cutting, for threads, asyncio and trio: the only place, with `testing`, that names them.

Each module has `park(waiter, until)` for queues and `sleep(waiter, until)` between attempts: wait until somebody
wakes the waiter, or until that time; and `in_time(call)`: call the function, until the call's deadline.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Awaitable
from typing import Any

from resilience._call.running_call import RunningCall, Wakeable
from resilience._util.clock import FOREVER, clock


def in_trio() -> bool:
    """Return whether trio runs the current task. Trio brings sniffio and sets its thread-local name while it runs."""
    sniffio = sys.modules.get("sniffio")
    return sniffio is not None and sniffio.thread_local.name == "trio"


class _Loops:
    """The modules for event loops, imported when first needed: asyncio takes 45 ms, and trio may not be there."""

    asyncio: Any = None
    trio: Any = None


def current_backend() -> Any:
    """Return the module for the event loop that is running."""
    if in_trio():
        if _Loops.trio is None:
            _Loops.trio = importlib.import_module("resilience._runtime.trio")
        return _Loops.trio
    if _Loops.asyncio is None:
        _Loops.asyncio = importlib.import_module("resilience._runtime.asyncio")
    return _Loops.asyncio


async def park(waiter: Wakeable, until: float) -> None:
    """Wait in whichever event loop is running."""
    await current_backend().park(waiter, until)


async def sleep(waiter: Wakeable, until: float) -> None:
    """Sleep between two attempts in whichever event loop is running."""
    clock.sleeping(until - clock.monotonic())
    await current_backend().park(waiter, until)


def call_with_deadline(call: RunningCall, value: Awaitable[Any] | None = None) -> Awaitable[Any]:
    """Call the user's function and cut it at the call's deadline; or have `value` awaited instead."""
    attempt: Awaitable[Any] = current_backend().call_with_deadline(call, value)
    return attempt


async def await_until(until: float, value: Awaitable[Any]) -> Any:
    """Await something until that time; TIME_IS_UP if it was not there by then."""
    return await current_backend().await_until(until, value)


def current_owner() -> object:
    """Return the running task, or else the number of the thread."""
    return current_backend().current_task() if in_a_task() else threading.get_ident()


def in_a_task() -> bool:
    """Return whether a task of an event loop runs in this thread; between two tasks, where finalisers may run, not."""
    if in_trio() or "asyncio" in sys.modules:
        return bool(current_backend().in_a_task())
    return False


def effective_deadline() -> float:
    """Return when the cancel scopes around the running task end, on the ambient clock; FOREVER outside of tasks."""
    if in_trio() or "anyio" in sys.modules:
        at: float = current_backend().effective_deadline()
        return at
    return FOREVER
