"""What of this library is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import resilience
from resilience import (
    AdaptiveLimit,
    Bulkhead,
    Caller,
    CircuitBreaker,
    Cooldown,
    Hedge,
    Partition,
    Pipeline,
    RateLimit,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
)

LIMIT = 50
SECONDS = 30.0
HOUR = 3600.0
DELAY = 0.05
RATE = 1e9
"""Calls per second: a rate limit that is never reached."""

Guard = Callable[[Any], Any]


def retry() -> Retry:
    return Retry(3, wait=backoff.none())


def evenly_paid() -> RetryBudget:
    """A budget from which every second call can be a retry, for ever."""
    return RetryBudget(ratio=1.0)


def pipeline(outer: bool = True, inner: bool = False, **more: Any) -> Pipeline[Any]:
    """Timeout, Retry with its budget, Bulkhead, CircuitBreaker with its time window; perhaps another Timeout."""
    head = [Timeout(SECONDS)] if outer else []
    tail = [Timeout(SECONDS / 2)] if inner else []
    return Pipeline(*head, retry(), Bulkhead(LIMIT), CircuitBreaker(), *tail, **more)


def by_target(factory: Callable[[], Any]) -> Caller[Any]:
    """A policy for each target, of which one is called."""
    return Pipeline(Partition(factory)).bind(target="api.example.com")


def by_arguments(factory: Callable[[], Any]) -> Caller[Any]:
    """A policy for each tuple of arguments, which a callable returns."""
    return Pipeline(Partition(factory, by=lambda call: call.args))


SUCCESS: dict[str, Guard] = {
    "resilience Timeout": lambda function: Timeout(SECONDS)(function),
    "resilience Retry": lambda function: retry()(function),
    "resilience Bulkhead": lambda function: Bulkhead(LIMIT)(function),
    "resilience AdaptiveLimit": lambda function: AdaptiveLimit(LIMIT)(function),
    "resilience CircuitBreaker": lambda function: CircuitBreaker()(function),
    "resilience Cooldown and CircuitBreaker": lambda function: Pipeline(Cooldown(), CircuitBreaker())(function),
    "resilience Partition of Bulkheads": lambda function: by_target(lambda: Bulkhead(LIMIT))(function),
    "resilience Partition of CircuitBreakers": lambda function: by_target(CircuitBreaker)(function),
    "resilience Partition of CircuitBreakers, callable": lambda function: by_arguments(CircuitBreaker)(function),
    "resilience RateLimit": lambda function: RateLimit(RATE, burst=RATE)(function),
    "resilience pipeline": lambda function: pipeline()(function),
    "resilience pipeline without Timeout": lambda function: pipeline(outer=False)(function),
    "resilience pipeline with two Timeouts": lambda function: pipeline(inner=True)(function),
}
HEDGE: dict[str, Guard] = {
    "resilience Hedge": lambda function: Pipeline(Hedge(DELAY)).bind(idempotent=True)(function),
}
FAILURE: dict[str, Guard] = {
    "resilience Retry": lambda function: Pipeline(retry(), budget=evenly_paid())(function),
    "resilience pipeline": lambda function: pipeline(budget=evenly_paid())(function),
    "resilience pipeline without Timeout": lambda function: pipeline(outer=False, budget=evenly_paid())(function),
}


def open_breaker(function: Any) -> Any:
    """One that opens with the first failure, for an hour."""
    return CircuitBreaker(consecutive_failures=1, open_for=HOUR, max_open_for=2 * HOUR)(function)


def open_pipeline(function: Any) -> Any:
    return Pipeline(
        Timeout(SECONDS),
        retry(),
        Bulkhead(LIMIT),
        CircuitBreaker(consecutive_failures=1, open_for=HOUR, max_open_for=2 * HOUR),
    )(function)


def with_window(seconds: float) -> Guard:
    return lambda function: CircuitBreaker(window=seconds)(function)


def with_window_and_retry(seconds: float) -> Guard:
    return lambda function: Pipeline(
        retry(), CircuitBreaker(window=seconds, failure_rate=1.0, consecutive_failures=None), budget=evenly_paid()
    )(function)


def refusal() -> type[BaseException]:
    return resilience.CircuitOpenError


def short_pipeline() -> Pipeline[Any]:
    """The whole pipeline with a window that is full after a second."""
    return Pipeline(Timeout(SECONDS), retry(), Bulkhead(LIMIT), CircuitBreaker(window=1.0), budget=evenly_paid())
