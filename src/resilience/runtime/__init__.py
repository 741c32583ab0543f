"""Waiting, for threads, asyncio and trio: the only place, with `testing`, that names them.

Each module has `park(waiter, until)` for queues and `sleep(waiter, until)` between attempts: wait until somebody
wakes the waiter, or until that time.
"""

from __future__ import annotations

import sys

from resilience.call import Waiter
from resilience.clock import ambient


def in_trio() -> bool:
    """Return whether trio runs the current task. Trio brings sniffio and sets its thread-local name while it runs."""
    sniffio = sys.modules.get("sniffio")
    return sniffio is not None and sniffio.thread_local.name == "trio"


async def park(waiter: Waiter, until: float) -> None:
    """Wait in whichever event loop is running."""
    if in_trio():
        from resilience.runtime import trio

        await trio.park(waiter, until)
    else:
        from resilience.runtime import asyncio

        await asyncio.park(waiter, until)


async def sleep(waiter: Waiter, until: float) -> None:
    """Sleep between two attempts in whichever event loop is running."""
    ambient.sleeping(until - ambient.monotonic())
    await park(waiter, until)
