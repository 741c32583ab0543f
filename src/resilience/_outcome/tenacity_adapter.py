"""tenacity's vocabulary, spoken by our own loop: its `wait_*`, `stop_*` and `retry_if_*`, and plain callables.

Its strategies are asked with a `RetryCallState`. Ours is one whose times come from the ambient clock, so that
`stop_after_delay` obeys virtual time; it is made only after a failure.
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
    """What a state has as its `retry_object`: tenacity's log callbacks ask it for a name. It never runs."""

    def __call__(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    def __str__(self) -> str:
        return "resilience"


_OWNER = _Owner()


class AttemptFuture(tenacity.Future):
    """How one attempt ended, in the form that tenacity's strategies ask for."""

    def __init__(self, attempt_number: int, error: BaseException | None, value: Any = None) -> None:
        # Not super().__init__(): a real future has a lock and a condition, which nobody needs here.
        self.attempt_number = attempt_number
        self._error = error
        self._value = value

    def __repr__(self) -> str:
        return f"<attempt {self.attempt_number}: {type(self._error).__name__ if self.failed else 'returned'}>"

    @property
    def failed(self) -> bool:
        """Whether it raised."""
        return self._error is not None

    def done(self) -> bool:
        """Return True: an attempt is over when somebody is asked about it."""
        return True

    def cancelled(self) -> bool:
        """Return False: no strategy is asked about a cancelled attempt."""
        return False

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what was raised."""
        del timeout
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        """Return the value, or raise what was raised."""
        del timeout
        if self._error is not None:
            raise self._error
        return self._value


class CallState(tenacity.RetryCallState):
    """The state of one call, as tenacity's strategies and log callbacks expect it.

    Args:
        started: when the first attempt began, on the ambient clock.
        function: what is called with `args` and `kwargs`.
    """

    def __init__(
        self,
        started: float,
        function: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        # Not super().__init__(): it reads the system's clock.
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
        """Note how an attempt ended. Let go of it with `forget`: the exception holds the frames that hold this."""
        self.attempt_number = attempt
        self.outcome = AttemptFuture(attempt, error, value)
        self.outcome_timestamp = clock.monotonic()

    def about_to_sleep(self, seconds: float) -> None:
        """Note the wait that was decided."""
        self.upcoming_sleep = seconds
        self.next_action = tenacity.RetryAction(seconds)

    def forget(self) -> None:
        """Let go of the outcome."""
        self.outcome = None


def about_errors(strategy: retry_base) -> Callable[[Exception], bool]:
    """Return a predicate of exceptions that asks a strategy."""

    def listed(error: Exception) -> bool:
        return _ask(strategy, error)

    listed.__qualname__ = type(strategy).__qualname__
    return listed


def about_results(strategy: retry_base) -> Callable[[Any], bool]:
    """Return a predicate of returned values that asks a strategy."""

    def listed(value: Any) -> bool:
        return _ask(strategy, None, value)

    listed.__qualname__ = type(strategy).__qualname__
    return listed


def _ask(strategy: retry_base, error: Exception | None, value: Any = None) -> bool:
    state = CallState(clock.monotonic())
    state.ended(1, error, value)
    try:
        return bool(strategy(state))
    finally:
        state.forget()


async def ask_async(predicate: Any, error: Exception) -> bool:
    """Ask an async predicate of exceptions, or an async strategy of tenacity."""
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
    """Return whether a strategy may be about returned values; if it surely is not, nobody asks it about them."""
    if isinstance(strategy, tenacity.retry_any | tenacity.retry_all):
        return any(looks_at_results(one) for one in strategy.retries)
    own = type(strategy).__call__
    return not (isinstance(strategy, retry_if_exception) and own is retry_if_exception.__call__)


def is_async(strategy: object) -> bool:
    """Return whether asking gives an awaitable."""
    return (
        isinstance(strategy, async_retry_base)
        or inspect.iscoroutinefunction(strategy)
        or inspect.iscoroutinefunction(type(strategy).__call__)
    )


def asks_about_results(strategy: object) -> bool:
    """Return whether an async strategy is about returned values, which nobody awaits."""
    inside: tuple[object, ...] = getattr(strategy, "retries", ())
    return isinstance(strategy, async_retry_if_result) or any(asks_about_results(one) for one in inside)
