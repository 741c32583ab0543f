"""Waiting in an asyncio task, on any event loop."""

from __future__ import annotations

import asyncio

from resilience.call import Waiter
from resilience.clock import FOREVER, Alarm, ambient


async def park(waiter: Waiter, until: float) -> None:
    """Wait until woken, from whatever thread, or until that time."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    timer: Alarm | None = None

    def done() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        if asyncio._get_running_loop() is loop:
            done()
        else:
            loop.call_soon_threadsafe(done)

    def due() -> None:
        nonlocal timer
        left = until - ambient.monotonic()
        if left <= 0:
            done()
        else:  # timers of an event loop may come early by the clock's resolution
            timer = loop.call_later(left, due)

    if waiter.park(wake):
        if until != FOREVER:
            timer = ambient.alarm(until, due) or loop.call_later(max(0.0, until - ambient.monotonic()), due)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
