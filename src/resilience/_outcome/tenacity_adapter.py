"""Support for tenacity's strategies: `wait_*`, `stop_*` and `retry_if_*`, and plain callables.

Strategies are called with a `RetryCallState`. The library passes a subclass with the times of its own clock, so that
`stop_after_delay` works in virtual time. It is created only after a failure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tenacity
from tenacity.asyncio.retry import async_retry_base
from tenacity.asyncio.retry import retry_if_result as async_retry_if_result
from tenacity.retry import retry_base, retry_if_exception

from resilience._util.clock import clock


class _Owner(tenacity.BaseRetrying):
    """The `retry_object` of a state: tenacity's log callbacks read its name. It is never called."""

    def __call__(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    def __str__(self) -> str:
        return "resilience"


_OWNER = _Owner()


class AttemptFuture(tenacity.Future):
    """The outcome of one attempt, in the form that tenacity's strategies expect.

    Args:
        attempt_number: the number of the attempt, from 1.
        error: the exception that was raised; None for a returned value.
        value: the returned value.
    """

    def __init__(self, attempt_number: int, error: BaseException | None, value: Any = None) -> None:
        # Not super().__init__(): it creates a lock and a condition, which are not needed here.
        self.attempt_number = attempt_number
        self._error = error
        self._value = value

    def __repr__(self) -> str:
        return f"<attempt {self.attempt_number}: {type(self._error).__name__ if self.failed else 'returned'}>"

    @property
    def failed(self) -> bool:
        """Whether the attempt raised an exception."""
        return self._error is not None

    def done(self) -> bool:
        """Return True: strategies are called after the attempt only."""
        return True

    def cancelled(self) -> bool:
        """Return False: strategies are not called after a cancelled attempt."""
        return False

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that was raised; None for a returned value."""
        del timeout
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, or raise the exception that was raised."""
        del timeout
        if self._error is not None:
            raise self._error
        return self._value


class CallState(tenacity.RetryCallState):
    """The state of one call, as tenacity's strategies and log callbacks expect it.

    Args:
        started: when the first attempt began, in seconds of the monotonic clock.
        function: the guarded function.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    def __init__(
        self,
        started: float,
        function: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        # Not super().__init__(): it reads the system clock.
        self.start_time = started
        self.retry_object = _OWNER
        self.fn: Any = function
        self.args = args
        self.kwargs = {} if kwargs is None else kwargs
        self.attempt_number = 1
        self.outcome = None
        self.outcome_timestamp = None
        self.idle_for = 0.0
        self.next_action = None
        self.upcoming_sleep = 0.0

    def ended(self, attempt: int, error: BaseException | None, value: Any = None) -> None:
        """Set the outcome of an attempt. Call `forget` afterwards: the exception's frames refer to this state."""
        self.attempt_number = attempt
        self.outcome = AttemptFuture(attempt, error, value)
        self.outcome_timestamp = clock.monotonic()

    def about_to_sleep(self, seconds: float) -> None:
        """Set the wait before the next attempt, in seconds."""
        self.upcoming_sleep = seconds
        self.next_action = tenacity.RetryAction(seconds)

    def forget(self) -> None:
        """Remove the outcome, which breaks the reference cycle with the exception's frames."""
        self.outcome = None


def error_predicate(strategy: retry_base) -> Callable[[Exception], bool]:
    """Return a predicate of exceptions that calls a strategy."""

    def listed(error: Exception) -> bool:
        return _should_retry(strategy, error)

    listed.__qualname__ = type(strategy).__qualname__
    return listed


def result_predicate(strategy: retry_base) -> Callable[[Any], bool]:
    """Return a predicate of returned values that calls a strategy."""

    def listed(value: Any) -> bool:
        return _should_retry(strategy, None, value)

    listed.__qualname__ = type(strategy).__qualname__
    return listed


def _should_retry(strategy: retry_base, error: Exception | None, value: Any = None) -> bool:
    """Return whether a strategy would retry after this error or value."""
    state = CallState(clock.monotonic())
    state.ended(1, error, value)
    try:
        return bool(strategy(state))
    finally:
        state.forget()


async def ask_async(predicate: Any, error: Exception) -> bool:
    """Return the result of an async predicate of exceptions, or of an async strategy of tenacity, for an error."""
    if not isinstance(predicate, retry_base):
        return bool(await predicate(error))
    state = CallState(clock.monotonic())
    state.ended(1, error)
    try:
        answer: Any = predicate(state)
        return bool(await answer if hasattr(answer.__class__, "__await__") else answer)
    finally:
        state.forget()


def looks_at_results(strategy: object) -> bool:
    """Return whether a strategy may depend on returned values; if not, it is not called for them."""
    if isinstance(strategy, tenacity.retry_any | tenacity.retry_all):
        return any(looks_at_results(part) for part in strategy.retries)
    own = type(strategy).__call__
    return not (isinstance(strategy, retry_if_exception) and own is retry_if_exception.__call__)


def is_async(strategy: object) -> bool:
    """Return whether a strategy or predicate returns an awaitable."""
    return (
        isinstance(strategy, async_retry_base)
        or inspect.iscoroutinefunction(strategy)
        or inspect.iscoroutinefunction(type(strategy).__call__)
    )


def asks_about_results(strategy: object) -> bool:
    """Return whether an async strategy depends on returned values, which is not supported."""
    parts: tuple[object, ...] = getattr(strategy, "retries", ())
    return isinstance(strategy, async_retry_if_result) or any(asks_about_results(part) for part in parts)
