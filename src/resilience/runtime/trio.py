"""Waiting in a trio task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio

from resilience.call import Waiter
from resilience.clock import FOREVER, ambient


async def park(waiter: Waiter, until: float) -> None:
    """Wait until woken, from whatever thread, or until that time."""
    token = trio.lowlevel.current_trio_token()
    task = trio.lowlevel.current_task()
    sleeping = True

    def done() -> None:
        nonlocal sleeping
        if sleeping:
            sleeping = False
            trio.lowlevel.reschedule(task)

    def wake() -> None:
        try:
            here = trio.lowlevel.current_trio_token() is token
        except RuntimeError:
            here = False
        if here:
            done()
        else:
            token.run_sync_soon(done)

    def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
        nonlocal sleeping
        sleeping = False
        return trio.lowlevel.Abort.SUCCEEDED

    if not waiter.park(wake):
        return
    alarm = None if until == FOREVER else ambient.alarm(until, done)
    seconds = math.inf if until == FOREVER or alarm is not None else max(0.0, until - ambient.monotonic())
    try:
        with trio.move_on_after(seconds):
            await trio.lowlevel.wait_task_rescheduled(abort)
    finally:
        sleeping = False
        if alarm is not None:
            alarm.cancel()
