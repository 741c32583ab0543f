"""How the peers limit time and concurrency, and how they put it all together."""

from __future__ import annotations

from typing import Any

from benchmarks.peer_breakers import interlock_breaker, resilient_circuit_breaker
from benchmarks.peers import ASYNCIO, Peer, load

LIMIT = 50
SECONDS = 30
DELAY = 0.05
RATE = 10**9
"""Calls per second: a rate limit that is never reached."""
NEVER = 10**6
"""Failures in a row that never happen."""


def _pyresilience(function: Any, *parts: str) -> Any:
    pyresilience = load("pyresilience")
    every = {
        "retry": pyresilience.RetryConfig(max_attempts=3, delay=0, jitter=False),
        "retry_budget": pyresilience.RetryBudgetConfig(max_retries=10**9, refill_rate=1e9),
        "circuit_breaker": pyresilience.CircuitBreakerConfig(
            sliding_window_size=100, minimum_calls=20, failure_rate_threshold=1.0
        ),
        "bulkhead": pyresilience.BulkheadConfig(max_concurrent=LIMIT),
        "rate_limiter": pyresilience.RateLimiterConfig(max_calls=RATE),
        "timeout": pyresilience.TimeoutConfig(seconds=SECONDS),
    }
    return pyresilience.resilient(**{part: every[part] for part in parts})(function)


def _pyresilience_pipeline(function: Any) -> Any:
    return _pyresilience(function, "retry", "retry_budget", "circuit_breaker", "bulkhead", "rate_limiter")


def _pyresilience_timed(function: Any) -> Any:
    return _pyresilience(function, "retry", "retry_budget", "circuit_breaker", "bulkhead", "rate_limiter", "timeout")


def _grit(function: Any, *more: Any) -> Any:
    grit = load("grit-toolkit")
    retry = grit.retry(tries=3, wait=lambda attempt: 0)
    return grit.policy(retry, grit.breaker(), grit.limiter(rate=RATE), grit.bulkhead(LIMIT), *more)(function)


def _grit_timed(function: Any) -> Any:
    return _grit(function, load("grit-toolkit").timeout(SECONDS))


def _crashbytes(function: Any) -> Any:
    crashbytes = load("crashbytes-resilience")
    return crashbytes.pipeline(  # innermost first
        crashbytes.circuit_breaker(),
        crashbytes.bulkhead(LIMIT),
        crashbytes.rate_limiter(RATE),
        crashbytes.retry(max_attempts=3, delay=0),
    )(function)


def _interlock_pipeline(function: Any, *more: Any) -> Any:
    interlock = load("interlock-cb")
    retry = load("interlock-cb", ".integrations.tenacity").RetryStrategy(attempts=3, wait=load("tenacity").wait_none())
    breaker = interlock.CircuitBreakerStrategy(interlock_breaker(NEVER, seconds=10))
    return interlock.Pipeline(retry, interlock.BulkheadStrategy(LIMIT), breaker, *more)(function)


def _interlock_timed(function: Any) -> Any:
    return _interlock_pipeline(function, load("interlock-cb").TimeoutStrategy(SECONDS))


def _interlock(function: Any, strategy: str, *arguments: Any) -> Any:
    interlock = load("interlock-cb")
    return interlock.Pipeline(getattr(interlock, strategy)(*arguments))(function)


def _nopanic(function: Any, *more: Any) -> Any:
    nopanic = load("nopanic")
    budget = nopanic.RetryBudget(ratio=0.2)
    retry = nopanic.retry(attempts=3, backoff=nopanic.backoff.fixed(0), budget=budget)
    return nopanic.compose(retry, nopanic.bulkhead(LIMIT), nopanic.circuit_breaker(window=10.0), *more)(function)


def _nopanic_timed(function: Any) -> Any:
    return _nopanic(function, load("nopanic").timeout(SECONDS))


def _resilient_circuit(function: Any) -> Any:
    package = load("resilient-circuit")
    retry = package.RetryWithBackoffPolicy(max_retries=2)
    return package.SafetyNet(policies=(retry, resilient_circuit_breaker(5)))(function)


def _tenacity_and_pybreaker(function: Any) -> Any:
    tenacity = load("tenacity")
    retry = tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none(), reraise=True)
    return retry(load("pybreaker").CircuitBreaker()(function))


BULKHEADS = (
    Peer("interlock-cb", "bulkhead", lambda function: _interlock(function, "BulkheadStrategy", LIMIT)),
    Peer("pyresilience", "bulkhead", lambda function: _pyresilience(function, "bulkhead")),
    Peer("grit-toolkit", "bulkhead", lambda function: load("grit-toolkit").bulkhead(LIMIT)(function)),
    Peer("crashbytes-resilience", "bulkhead", lambda function: load("crashbytes-resilience").bulkhead(LIMIT)(function)),
)
LIMITERS = (
    Peer("pyresilience", "rate limiter", lambda function: _pyresilience(function, "rate_limiter")),
    Peer("grit-toolkit", "limiter", lambda function: load("grit-toolkit").limiter(rate=RATE)(function)),
    Peer(
        "crashbytes-resilience",
        "rate limiter",
        lambda function: load("crashbytes-resilience").rate_limiter(RATE)(function),
    ),
)
TIMEOUTS = (
    Peer("interlock-cb", "timeout", lambda function: _interlock(function, "TimeoutStrategy", SECONDS)),
    Peer("pyresilience", "timeout", lambda function: _pyresilience(function, "timeout")),
    Peer("grit-toolkit", "timeout", lambda function: load("grit-toolkit").timeout(SECONDS)(function)),
    Peer("crashbytes-resilience", "timeout", lambda function: load("crashbytes-resilience").timeout(SECONDS)(function)),
)
HEDGES = (Peer("grit-toolkit", "hedge", lambda function: load("grit-toolkit").hedge(DELAY)(function), (ASYNCIO,)),)
PIPELINES = (
    Peer("crashbytes-resilience", "pipeline", _crashbytes),
    Peer("grit-toolkit", "pipeline", _grit),
    Peer("pyresilience", "pipeline", _pyresilience_pipeline),
    Peer("interlock-cb", "pipeline", _interlock_pipeline),
    Peer("nopanic", "pipeline", _nopanic),
    Peer("resilient-circuit", "pipeline", _resilient_circuit),
    Peer("tenacity", "retry and pybreaker", _tenacity_and_pybreaker, ("sync",)),
)
TIMED_PIPELINES = (
    Peer("grit-toolkit", "pipeline with timeout", _grit_timed, (ASYNCIO,)),
    Peer("pyresilience", "pipeline with timeout", _pyresilience_timed, (ASYNCIO,)),
    Peer("interlock-cb", "pipeline with timeout", _interlock_timed, (ASYNCIO,)),
    Peer("nopanic", "pipeline with timeout", _nopanic_timed, (ASYNCIO,)),
)
