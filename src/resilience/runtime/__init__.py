"""Waiting and cutting, for threads, asyncio and trio: the only place, with `testing`, that names them.

Each module has `park(waiter, until)` for queues and `sleep(waiter, until)` between attempts: wait until somebody
wakes the waiter, or until that time; and `in_time(call)`: call the function, until the call's deadline.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from resilience.call import Call, Waiter
from resilience.clock import FOREVER, ambient


class Shelter:
    """Where a step that is done apart must not be cancelled: whoever cancels it there does not wait for it.

    Args:
        cancel: cancels the step.
    """

    __slots__ = ("_cancel", "_wanted", "closed")

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        self._wanted = False
        self.closed = False
        """Whether the step is inside."""

    def enter(self) -> None:
        """From here on, the step must not be cancelled."""
        self.closed = True

    def leave(self) -> None:
        """From here on, it may be; if somebody wanted that meanwhile, it is."""
        self.closed = False
        if self._wanted:
            self._cancel()

    @property
    def wanted(self) -> bool:
        """Whether somebody has cancelled it."""
        return self._wanted

    def cancel(self) -> bool:
        """Cancel the step, now or when it leaves; returns whether it is cancelled now."""
        self._wanted = True
        if not self.closed:
            self._cancel()
        return not self.closed


Step: TypeAlias = "Callable[[Shelter], Awaitable[Any]]"
Dispose: TypeAlias = "Callable[[Any], Awaitable[None]]"


def in_trio() -> bool:
    """Return whether trio runs the current task. Trio brings sniffio and sets its thread-local name while it runs."""
    sniffio = sys.modules.get("sniffio")
    return sniffio is not None and sniffio.thread_local.name == "trio"


class _Loops:
    """The modules for event loops, imported when first needed: asyncio takes 45 ms, and trio may not be there."""

    asyncio: Any = None
    trio: Any = None


def here() -> Any:
    """Return the module for the event loop that is running."""
    if in_trio():
        if _Loops.trio is None:
            _Loops.trio = importlib.import_module("resilience.runtime.trio")
        return _Loops.trio
    if _Loops.asyncio is None:
        _Loops.asyncio = importlib.import_module("resilience.runtime.asyncio")
    return _Loops.asyncio


async def park(waiter: Waiter, until: float) -> None:
    """Wait in whichever event loop is running."""
    await here().park(waiter, until)


async def sleep(waiter: Waiter, until: float) -> None:
    """Sleep between two attempts in whichever event loop is running."""
    ambient.sleeping(until - ambient.monotonic())
    await here().park(waiter, until)


def in_time(call: Call, value: Awaitable[Any] | None = None) -> Awaitable[Any]:
    """Call the user's function and cut it at the call's deadline; or have `value` awaited instead."""
    attempt: Awaitable[Any] = here().in_time(call, value)
    return attempt


async def apart(step: Step, dispose: Dispose) -> Any:
    """Run a step that has moments in which it must not be cancelled: in a task of its own.

    If this task is cancelled, the step is, too: at once, and then this waits until it has cleaned up; or, in its
    shelter, when it leaves that, and then nobody waits for it. What it returns all the same is disposed of.
    """
    return await here().apart(step, dispose)


async def finish(step: Callable[[], Awaitable[Any]]) -> None:
    """Run a step to its end, also when the task is cancelled meanwhile; the cancellation comes out afterwards."""
    await here().finish(step)


async def by(until: float, value: Awaitable[Any]) -> Any:
    """Await something until that time; TIME_IS_UP if it was not there by then."""
    return await here().by(until, value)


def whoami() -> object:
    """Return the running task, or else the number of the thread."""
    return here().current_task() if in_a_task() else threading.get_ident()


def in_a_task() -> bool:
    """Return whether a task of an event loop runs in this thread."""
    if in_trio():
        return True
    return "asyncio" in sys.modules and bool(here().in_a_task())


def effective_deadline() -> float:
    """Return when the cancel scopes around the running task end, on the ambient clock; FOREVER outside of tasks."""
    if in_trio() or "anyio" in sys.modules:
        at: float = here().effective_deadline()
        return at
    return FOREVER
