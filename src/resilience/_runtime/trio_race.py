"""Attempts that race in trio: the first one in the task of the caller, the others in tasks of a nursery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from resilience._runtime import park
from resilience._runtime.racing import Racers
from resilience._util.clock import FOREVER


class _Bell:
    """A signal that one task waits for; a ring while it does not wait ends its next wait at once."""

    def __init__(self) -> None:
        self._rung = False
        self._wake: Callable[[], object] | None = None

    def add_waker(self, wake: Callable[[], object]) -> bool:
        self._wake = wake
        rung, self._rung = self._rung, False
        return not rung

    def ring(self) -> None:
        wake, self._wake = self._wake, None
        if wake is None:
            self._rung = True
        else:
            wake()


async def race(racers: Racers, first: Any, *, via_anyio: bool) -> None:
    """Make attempts until the race is over; then cancel the others, and return when all have ended."""
    del via_anyio  # in trio, all cancellation is that of scopes
    bell, done, own = _Bell(), trio.Event(), trio.CancelScope()
    running = 1

    async def attempt_in_task(attempt: Any) -> None:
        nonlocal running
        try:
            await racers.make(attempt)
        finally:
            running -= 1
            if not attempt.ended:
                racers.lost(attempt)
            bell.ring()

    async def start_others() -> None:
        nonlocal running
        while True:
            while not racers.over and (attempt := racers.start_next()) is not None:
                running += 1
                nursery.start_soon(attempt_in_task, attempt)
            at = racers.next_at()
            if racers.over or not (running or at < FOREVER):
                break
            await park(bell, at)
        own.cancel()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start_others)
        with own:
            await racers.make(first)
        running -= 1
        if not first.ended:
            racers.lost(first)
        bell.ring()
        if not racers.over:
            await done.wait()
        nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint_if_cancelled()  # the nursery takes a cancellation from outside for its own
