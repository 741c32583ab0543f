"""Waits and deadlines on threads, asyncio and trio. Only this package and `testing` depend on these.

Each module has `park(waiter, until)`, which waits in a queue until the waiter is woken or until that time, and
`call_with_deadline(call)`, which calls the function and enforces the call's deadline. `threads` and this module also
have `sleep(waiter, until)` for the waits between attempts. All times are those of the library's monotonic clock.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from resilience._call.running_call import RunningCall, Wakeable
from resilience._outcome.failure import leaves
from resilience._runtime.racing import Racers
from resilience._util.clock import FOREVER, clock


def in_trio() -> bool:
    """Return whether trio is running in this thread. Trio sets the thread-local name of sniffio while it runs."""
    sniffio = sys.modules.get("sniffio")
    return sniffio is not None and sniffio.thread_local.name == "trio"


class _Loops:
    """The modules for event loops, imported on first use: asyncio takes 45 ms, and trio may not be installed."""

    asyncio: Any = None
    trio: Any = None


def current_backend() -> Any:
    """Return the module for the running event loop."""
    if in_trio():
        if _Loops.trio is None:
            _Loops.trio = importlib.import_module("resilience._runtime.trio")
        return _Loops.trio
    if _Loops.asyncio is None:
        _Loops.asyncio = importlib.import_module("resilience._runtime.asyncio")
    return _Loops.asyncio


async def park(waiter: Wakeable, until: float) -> None:
    """Wait in the running event loop until woken, or until that time."""
    await current_backend().park(waiter, until)


async def sleep(waiter: Wakeable, until: float) -> None:
    """Sleep between two attempts in the running event loop until that time, or until woken."""
    clock.sleeping(until - clock.monotonic())
    await current_backend().park(waiter, until)


async def checkpoint() -> None:
    """Let the other tasks of the running event loop run, and be cancelled if that is due."""
    await current_backend().checkpoint()


def task_starter() -> Callable[[Callable[[], Awaitable[object]]], object]:
    """Return a function that starts a task in the event loop that runs now, called from any thread or finalizer.

    The task calls and awaits a function; what it raises is ignored. If the loop has ended by then, nothing is started.
    """
    starter: Callable[[Callable[[], Awaitable[object]]], object] = current_backend().task_starter()
    return starter


def cancellations() -> int:
    """Return how many cancellations of the running task are pending; 0 in trio, which raises them again itself."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return 0
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0  # no event loop of asyncio runs
    return 0 if task is None else task.cancelling()


async def race(racers: Racers, first: Any, *, via_anyio: bool) -> None:
    """Make attempts until a race is over; then cancel the others, and return when all have ended.

    Args:
        racers: the attempts.
        first: the first attempt, which is made in this task.
        via_anyio: whether the client shields its clean-up with cancel scopes of anyio; these cancel the others then.
    """
    await current_backend().race(racers, first, via_anyio=via_anyio)


async def shielded(value: Awaitable[Any]) -> Any:
    """Await a value in a task that was cancelled."""
    import anyio

    with anyio.CancelScope(shield=True):
        return await value


async def outlasting(seconds: float, value: Awaitable[object]) -> bool:
    """Await a value, also for so many seconds after the cancel scopes of anyio around it were cancelled.

    Returns:
        Whether it has ended. A `Task.cancel` of asyncio is not held back.
    """
    import anyio

    until = max(anyio.current_effective_deadline(), anyio.current_time()) + seconds
    with anyio.CancelScope(deadline=until, shield=True):
        await value
        return True
    return False


def is_cancellation(error: BaseException) -> bool:
    """Return whether an exception is the cancellation of a task, alone or in a group."""
    cancelled: type[BaseException] = current_backend().CANCELLED
    return any(isinstance(leaf, cancelled) for leaf in leaves(error))


def call_with_deadline(call: RunningCall, value: Awaitable[Any] | None = None) -> Awaitable[Any]:
    """Call and await the user's function, or await `value` instead, and cancel it at the call's deadline."""
    attempt: Awaitable[Any] = current_backend().call_with_deadline(call, value)
    return attempt


async def await_until(until: float, value: Awaitable[Any]) -> Any:
    """Await a value until that time; return TIMED_OUT if it was cancelled then."""
    return await current_backend().await_until(until, value)


def in_a_task() -> bool:
    """Return whether a task of an event loop is running in this thread; False between tasks, also in finalizers."""
    if in_trio() or "asyncio" in sys.modules:
        return bool(current_backend().in_a_task())
    return False


def loop_is_running() -> bool:
    """Return whether an event loop runs in this thread."""
    return in_trio() or ("asyncio" in sys.modules and bool(current_backend().loop_is_running()))


def effective_deadline() -> float:
    """Return the deadline of the cancel scopes around the running task, on the library's clock; FOREVER without one."""
    if in_trio() or "anyio" in sys.modules:
        at: float = current_backend().effective_deadline()
        return at
    return FOREVER
