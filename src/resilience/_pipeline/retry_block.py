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
    """

    def __init__(self, in_flight: InFlight, loop: Loop, options: CallOptions, mode: Mode) -> None:
        self._in_flight = in_flight
        self._loop = loop
        self._mode = mode
        self._call = RunningCall.make(options, block, (), {})
        self._state: RetryState | None = None
        self._attempt: Attempt | None = None
        self._left = False

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Attempt:
        """Wait, if an attempt has failed, and return the next one; stop if one has succeeded."""
        last = self._attempt
        if last is None:
            return self._first(threads.effective_deadline)
        wait = self._next_wait(last)
        if wait > 0:
            threads.sleep(self._call, clock.monotonic() + wait)
        return self._next(last)

    async def __anext__(self) -> Attempt:
        """Do as `__next__` does, in a task."""
        last = self._attempt
        if last is None:
            return self._first(_runtime.effective_deadline)
        try:
            wait = self._next_wait(last)
        except StopIteration:
            raise StopAsyncIteration from None
        if wait > 0:
            await _runtime.sleep(self._call, clock.monotonic() + wait)
        else:
            await _runtime.checkpoint()
        return self._next(last)

    def __del__(self) -> None:
        if not self._left and self._attempt is not None:  # the loop was left before the block
            settle_from_finalizer(self._leave)

    def _first(self, scope_deadline: Any) -> Attempt:
        run_pending()
        call = self._call
        if clock.monotonic() >= call.deadline:
            raise deadline_errors.expired_error(call)
        shadow = self._mode is Mode.SHADOW
        self._state = RetryState(clock.monotonic(), scope_deadline, shadow=shadow)
        self._attempt = Attempt(self, 1)
        self._in_flight.calls.add(call)
        if self._in_flight.draining:
            self._leave()
            self._in_flight.host.reject(call)
        return self._attempt

    def _next_wait(self, last: Attempt) -> float:
        """Return the wait before the next attempt, or raise StopIteration if there is none."""
        if not last.used:
            self._leave()
            raise UsageError("the body of the loop must be `with attempt:`, so that its outcome is known")
        if last.wait is None:
            raise StopIteration
        return last.wait

    def _next(self, last: Attempt) -> Attempt:
        call = self._call
        error, last.error = last.error, None
        try:
            if call.retries_stopped and error is not None and self._state is not None:
                hooks.attempt_rejected(self._loop, call, OK, error, self._state)
                self._leave()
                raise error
        finally:
            del error  # its traceback refers to this frame
        call.attempt += 1
        call.inside = None
        call.ending = None
        self._attempt = Attempt(self, last.number + 1)
        return self._attempt

    def begin(self) -> None:
        """Begin an attempt: code inside knows by its context that it is inside of it."""
        call = self._call
        call.inside = Ambient.make(FOREVER, call.ambient)
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
            wait = hooks.decide_delay(self._loop, call, call.ending_of(error), state)
        return wait

    def finish(self, wait: float | None) -> float | None:
        """Return the wait before the next attempt; if there is none, or in shadow mode, count the block out."""
        if self._mode is not Mode.ENFORCE:
            wait = None
        if wait is None:
            self._leave()
        return wait

    def unawaited(self, wait: Any) -> UsageError:
        """Return the error of a plain `with` whose Retry has an async predicate."""
        return callables.unawaited_delay(wait, self._loop.name)

    def _succeeded(self) -> None:
        try:
            on_success = self._loop.on_success(self._call.pipeline)
            if on_success is not None and self._mode is not Mode.OFF:
                on_success()
        except Exception as error:
            hook_failed("on_success of a policy", self._loop, error)

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
        used: whether its block was entered.
        wait: the seconds before the next attempt; None if none follows.
        error: the failure after which another attempt follows; None for none.
    """

    __slots__ = ("_block", "error", "number", "used", "wait")

    def __init__(self, block: RetryBlock, number: int) -> None:
        self._block = block
        self.number = number
        self.used = False
        self.wait: float | None = None
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        if self.used:
            raise UsageError("this attempt was made before; the loop has the next one")
        self.used = True
        self._block.begin()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Swallow a failure after which another attempt follows."""
        wait = self._block.end(error)
        if hasattr(wait.__class__, "__await__"):
            self._block.finish(None)
            raise self._block.unawaited(wait)
        return self._ended(error, wait)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Swallow a failure after which another attempt follows."""
        wait = self._block.end(error)
        if hasattr(wait.__class__, "__await__"):
            wait = hooks.validated_delay(await wait)
        return self._ended(error, wait)

    def _ended(self, error: BaseException | None, wait: float | None) -> bool:
        self.wait = self._block.finish(wait)
        if self.wait is None:
            return False
        self.error = error if isinstance(error, Exception) else None
        return True


def block() -> None:
    """Stand-in for the function of a call: a block has none. Its name is the operation in events."""
