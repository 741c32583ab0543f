"""Attempts that race in asyncio: the first one in the task of the caller, the others in tasks of their own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from resilience._runtime.racing import Racers
from resilience._util.clock import FOREVER, TimerHandle, clock

CLEAN_UP = 0.01
"""When to look again whether a task that is being cancelled has cleaned up, in seconds: it may go on."""


class CancelScope:
    """Cancels the code inside of a `with` statement, as `asyncio.timeout` does, when `cancel` is called.

    It is as quick to set up as `anyio.CancelScope` is not, and cancels once: for code that does not shield itself.
    """

    __slots__ = ("_before", "_task", "cancel_called")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self.cancel_called = False

    def __enter__(self) -> CancelScope:
        task = asyncio.current_task()
        assert task is not None, "an asyncio coroutine runs in a task"
        self._task = task
        self._before = task.cancelling()
        if self.cancel_called:
            task.cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Swallow the cancellation if it is this one, and not one from outside."""
        task, self._task = self._task, None
        if not self.cancel_called or task is None:
            return False
        return task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)

    def cancel(self) -> None:
        """Cancel the code inside, once."""
        if not self.cancel_called:
            self.cancel_called = True
            if self._task is not None:
                self._task.cancel()


class _Arena:
    """One race.

    Args:
        racers: the attempts.
        via_anyio: whether cancel scopes of anyio cancel them, for clients that shield their clean-up with one.
    """

    def __init__(self, racers: Racers, *, via_anyio: bool) -> None:
        self._racers = racers
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "an asyncio coroutine runs in a task"
        self._task = task
        self._cancelling = task.cancelling()
        self._stopped = False
        self._new_scope: Callable[[], Any] = CancelScope
        if via_anyio:
            import anyio

            self._new_scope = anyio.CancelScope
        self._tasks: dict[asyncio.Task[None], Any] = {}
        self._scopes: dict[Any, Any] = {}
        self._own: Any = None
        self._timer: TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None

    async def run(self, first: Any) -> None:
        """Make the first attempt here, and the others as they become due; return when the race is over."""
        racers = self._racers
        try:
            self._own = self._new_scope()
            self._start_due()
            await self._make(first, self._own)
            self._own = None
            self._start_due()
            while not racers.over and (self._tasks or (self._timer is not None and not self._cancelled)):
                self._idle = self._loop.create_future()
                await self._idle
                self._idle = None
        except GeneratorExit:  # the coroutine is garbage-collected, and cannot wait any more
            self._stop()
            raise
        except BaseException:
            self._own = None
            self._stop()
            await self._join()
            raise
        self._stop()
        if self._tasks:
            await self._join()

    async def _make(self, attempt: Any, scope: Any) -> None:
        with scope:
            await self._racers.make(attempt)
        if not attempt.ended:
            self._racers.lost(attempt)

    async def _make_in_task(self, attempt: Any) -> None:
        scope = self._scopes[attempt] = self._new_scope()  # anyio makes scopes in tasks only
        await self._make(attempt, scope)

    def _start_due(self) -> None:
        """Start what is due, and arm the timer for what comes next. While the call is cancelled, start nothing."""
        racers = self._racers
        soonest = -FOREVER
        if self._cancelled:
            soonest = clock.monotonic() + CLEAN_UP
        else:
            while not self._stopped and not racers.over and (attempt := racers.start_next()) is not None:
                task = self._loop.create_task(self._make_in_task(attempt))
                self._tasks[task] = attempt
                task.add_done_callback(self._ended)
        self._arm(soonest)
        if racers.over and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    @property
    def _cancelled(self) -> bool:
        """Whether the task of the caller is being cancelled, or was and has gone on."""
        return self._task.cancelling() > self._cancelling

    def _arm(self, soonest: float) -> None:
        self._disarm()
        at = FOREVER if self._stopped else max(soonest, self._racers.next_at())
        if at != FOREVER:
            left = max(0.0, at - clock.monotonic())
            self._timer = clock.alarm(at, self._start_due) or self._loop.call_later(left, self._start_due)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        attempt = self._tasks.pop(task)
        if task.cancelled():
            if not attempt.ended:
                self._racers.cancelled(attempt)  # from outside, as `asyncio.run` does at its end
        elif (error := task.exception()) is not None and not attempt.ended:
            attempt.error = error
            self._racers.ended(attempt)
        if self._racers.over:
            self._disarm()
            if self._own is not None:
                self._own.cancel()
        else:
            self._start_due()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _stop(self) -> None:
        """Start nothing any more, and cancel the tasks that still run."""
        self._stopped = True
        self._disarm()
        for task, attempt in self._tasks.items():
            scope = self._scopes.get(attempt)
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                if scope is None:  # the task has not begun
                    task.cancel()
                else:
                    scope.cancel()

    async def _join(self) -> None:
        """Wait for all tasks, also if this one is cancelled meanwhile; then raise that."""
        interrupted: asyncio.CancelledError | None = None
        with _shield():
            while self._tasks:
                try:
                    self._idle = self._loop.create_future()
                    await self._idle
                except asyncio.CancelledError as error:
                    interrupted = error
        if interrupted is not None:
            raise interrupted


def _shield() -> contextlib.AbstractContextManager[object]:
    """Return what keeps scopes of anyio that are cancelled from cancelling this task at each turn of the loop."""
    anyio = sys.modules.get("anyio")
    shield: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    return shield if anyio is None else anyio.CancelScope(shield=True)


async def race(racers: Racers, first: Any, *, via_anyio: bool) -> None:
    """Make attempts until the race is over; then cancel the others, and return when all have ended."""
    await _Arena(racers, via_anyio=via_anyio).run(first)
