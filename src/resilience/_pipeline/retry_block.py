"""A Retry around a block of code: `for attempt in Retry(3): with attempt: ...`, and the same in tasks."""

from __future__ import annotations

from typing import Any, Self

from resilience import _runtime
from resilience._call import callables, deadline_errors
from resilience._call.ambient import Ambient, ambient
from resilience._call.call import CallOptions
from resilience._call.retry_state import RetryState
from resilience._call.running_call import RunningCall
from resilience._drivers import hooks
from resilience._drivers.async_ import await_delay
from resilience._outcome.ending import OK
from resilience._pipeline.in_flight import InFlight
from resilience._policies.shapes import Loop
from resilience._runtime import threads
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import run_pending, settle_from_finalizer
from resilience._util.log_once import hook_failed
from resilience.errors import UsageError
from resilience.events._types import Mode


class RetryBlock:
    """The attempts of one block of code: an iterator, and an async iterator, of the attempts that are made.

    Args:
        in_flight: the calls in flight of the Retry's own pipeline.
        loop: the Retry.
        options: the options of its calls.
        mode: its mode.

    Attributes:
        loop: the Retry.
    """

    def __init__(self, in_flight: InFlight, loop: Loop, options: CallOptions, mode: Mode) -> None:
        self.loop = loop
        self._in_flight = in_flight
        self._mode = mode
        self._call = RunningCall.make(options, block, (), {})
        self._state: RetryState | None = None
        self._number = 0  # of the latest attempt
        self._used = False  # whether its block was entered
        self._error: Exception | None = None  # the failure that it was swallowed with
        self._wait: float | None = None  # before the next one
        self._left = False

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Attempt:
        """Wait, if an attempt has failed, and return the next one; stop if one has succeeded."""
        if self._number == 0:
            return self._first(threads.effective_deadline)
        wait = self._next_wait()
        if wait is None:
            raise StopIteration
        try:
            if wait > 0:
                threads.sleep(self._call, clock.monotonic() + wait)
        except BaseException:
            self._leave()
            raise
        return self._next()

    async def __anext__(self) -> Attempt:
        """Do as `__next__` does, in a task."""
        if self._number == 0:
            return self._first(_runtime.effective_deadline)
        wait = self._next_wait()
        if wait is None:
            raise StopAsyncIteration
        try:
            if wait > 0:
                await _runtime.sleep(self._call, clock.monotonic() + wait)
            else:
                await _runtime.checkpoint()
        except BaseException:
            self._leave()
            raise
        return self._next()

    def __del__(self) -> None:
        if not self._left and self._number:  # the loop was left before it had ended
            settle_from_finalizer(self._leave)

    def _first(self, scope_deadline: Any) -> Attempt:
        run_pending()
        call = self._call
        if clock.monotonic() >= call.deadline:
            raise deadline_errors.expired_error(call)
        shadow = self._mode is Mode.SHADOW
        self._state = RetryState(clock.monotonic(), scope_deadline, shadow=shadow, settings=self.loop.settings)
        self._number = 1
        self._in_flight.calls.add(call)
        if self._in_flight.draining:
            self._leave()
            self._in_flight.host.reject(call)
        return Attempt(self, 1)

    def _next_wait(self) -> float | None:
        """Return the wait before the next attempt; None if there is none."""
        if not self._used and not self._left:
            self._leave()
            raise UsageError("the body of the loop must be `with attempt:`, so that its outcome is known")
        return self._wait

    def _next(self) -> Attempt:
        call = self._call
        error, self._error = self._error, None
        try:
            if call.retries_stopped and error is not None and self._state is not None:
                hooks.attempt_rejected(self.loop, call, OK, error, self._state)
                self._leave()
                raise error
        finally:
            del error  # its traceback refers to this frame
        call.attempt += 1
        call.inside = None
        self._number += 1
        self._used = False
        return Attempt(self, self._number)

    def begin(self, number: int) -> None:
        """Begin an attempt: code inside knows by its context that it is inside of it."""
        if self._used or number != self._number:
            raise UsageError("this attempt was made before; the loop has the next one")
        self._used = True
        call = self._call
        call.inside = Ambient.make(FOREVER, ambient.get().innermost())
        ambient.set(call.inside)
        call.calls_made += 1
        call.cancellations = _runtime.cancellations()

    def end(self, error: BaseException | None) -> Any:
        """Take the outcome of an attempt; return the wait before the next one, or None if there is none."""
        call, state = self._call, self._state
        if call.inside is not None:
            call.inside.live = False
        wait: Any = None
        if error is None:
            self._succeeded()
        elif state is None or self._mode is Mode.OFF or not isinstance(error, Exception):
            pass
        elif not hooks.was_cancelled(call, state, _runtime.cancellations()):
            wait = hooks.decide_delay(self.loop, call, call.ending_of(error), state)
        return wait

    async def awaited(self, wait: Any) -> float | None:
        """Await the wait of a Retry whose predicate is async."""
        try:
            return await await_delay(wait, self.loop, self._call)
        except BaseException:
            self._leave()
            raise

    def finish(self, error: BaseException | None, wait: float | None) -> bool:
        """Return whether another attempt follows; if none does, or in shadow mode, count the block out."""
        self._call.ending = None  # its exception refers to the frame of the block, which may be left now
        self._wait = wait if self._mode is Mode.ENFORCE else None
        if self._wait is None:
            self._leave()
            return False
        self._error = error if isinstance(error, Exception) else None
        return True

    def _succeeded(self) -> None:
        try:
            on_success = self.loop.on_success(self._call.pipeline)
            if on_success is not None and self._mode is not Mode.OFF:
                on_success()
        except Exception as error:
            hook_failed("on_success of a policy", self.loop, error)

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._call.ending = None
            if self._call.inside is not None:
                self._call.inside.given_up = None
            self._in_flight.leave(self._call)


class Attempt:
    """One attempt of a block, a context manager: `with attempt:`, or `async with attempt:`.

    Attributes:
        number: its number, from 1.
    """

    __slots__ = ("_block", "number")

    def __init__(self, block: RetryBlock, number: int) -> None:
        self._block = block
        self.number = number

    def __enter__(self) -> Self:
        self._block.begin(self.number)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Swallow a failure after which another attempt follows."""
        wait = self._block.end(error)
        if hasattr(wait.__class__, "__await__"):
            self._block.finish(error, None)
            raise callables.unawaited_delay(wait, self._block.loop.name)
        return self._block.finish(error, wait)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Swallow a failure after which another attempt follows."""
        wait = self._block.end(error)
        if hasattr(wait.__class__, "__await__"):
            wait = await self._block.awaited(wait)
        return self._block.finish(error, wait)


def block() -> None:
    """Stand-in for the function of a call: a block has none. Its name is the operation in events."""
