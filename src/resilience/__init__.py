"""Client-side resilience: retries, circuit breakers, bulkheads and timeouts for threads, asyncio and trio.

Policies are composed into a `Pipeline`, through which functions, httpx clients and gRPC channels are called.
"""

from __future__ import annotations

import importlib
import os as _os
import sys as _sys
import warnings as _warnings
from typing import Any

from resilience import backoff, events, logs
from resilience._call.budget import RetryBudget
from resilience._call.call import Call
from resilience._call.caller import Caller
from resilience._call.retry_state import RetryState
from resilience._call.settlement import DeferredSettlement
from resilience._call.wait_queue import Ticket, WaitQueue
from resilience._outcome.allowlist import ANSWER, Allowlist, Failure, FailureKind
from resilience._outcome.ending import Ending, EndingKind, Hint
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._outcome.status_failures import HTTP_FAILURES, status_failures
from resilience._pipeline.engine import set_mode
from resilience._pipeline.pipeline import Pipeline, pipelines
from resilience._pipeline.readiness import health
from resilience._pipeline.standard import StandardPipeline, standard
from resilience._policies.adaptive_limit import AdaptiveLimit
from resilience._policies.base import Policy
from resilience._policies.breaker.breaker import CircuitBreaker
from resilience._policies.bulkhead import Bulkhead
from resilience._policies.chaos import Chaos
from resilience._policies.cooldown.cooldown import Cooldown
from resilience._policies.fallback import Fallback
from resilience._policies.hedge import Hedge, quantile
from resilience._policies.partition import Partition
from resilience._policies.rate_limit.rate_limit import CombinedRateLimit, RateLimit
from resilience._policies.rate_limit.reservation import Reservation
from resilience._policies.retry.retry import Retry
from resilience._policies.shapes import Gate, Loop, Race, Scope, Substitute
from resilience._policies.stale_cache import StaleCache
from resilience._policies.timeout import Timeout
from resilience._runtime.deadline import carry, current_deadline, deadline_after, detached, remaining
from resilience._util.exports import set_public_module as _set_public_module
from resilience._util.locks import new_lock
from resilience.errors import (
    BadResult,
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    RejectedError,
    RejectReason,
    ResilienceError,
    ResilienceWarning,
    UsageError,
)
from resilience.events._bus import Subscription, subscribe
from resilience.events._types import BreakerState, Mode

__all__ = [
    "ANSWER",
    "HTTP_FAILURES",
    "NETWORK_ERRORS",
    "AdaptiveLimit",
    "Allowlist",
    "BadResult",
    "BreakerState",
    "Bulkhead",
    "BulkheadFullError",
    "Call",
    "Caller",
    "Chaos",
    "CircuitBreaker",
    "CircuitOpenError",
    "CombinedRateLimit",
    "Cooldown",
    "DeadlineExceededError",
    "DeferredSettlement",
    "Ending",
    "EndingKind",
    "Failure",
    "FailureKind",
    "Fallback",
    "Gate",
    "Hedge",
    "Hint",
    "Loop",
    "Mode",
    "Partition",
    "Pipeline",
    "Policy",
    "Race",
    "RateLimit",
    "RateLimitedError",
    "RejectReason",
    "RejectedError",
    "Reservation",
    "ResilienceError",
    "ResilienceWarning",
    "Retry",
    "RetryBudget",
    "RetryState",
    "Scope",
    "StaleCache",
    "StandardPipeline",
    "Subscription",
    "Substitute",
    "Ticket",
    "Timeout",
    "UsageError",
    "WaitQueue",
    "backoff",
    "carry",
    "current_deadline",
    "deadline_after",
    "detached",
    "events",
    "health",
    "logs",
    "new_lock",
    "pipelines",
    "quantile",
    "remaining",
    "set_mode",
    "standard",
    "status_failures",
    "subscribe",
]


_LAZY = frozenset({"asgi", "grpc", "httpx", "jobs", "opentelemetry", "prometheus", "testing"})
"""Submodules that need an optional package, or that most programs do not use: imported on first access."""


def __getattr__(name: str) -> Any:
    """Import a submodule on first access (PEP 562)."""
    if name in _LAZY:
        return importlib.import_module(f"resilience.{name}")
    raise AttributeError(f"module 'resilience' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, including the lazily imported submodules."""
    return sorted({*__all__, *_LAZY})


_set_public_module(__name__, __all__, globals())
_is_gil_enabled: Any = getattr(_sys, "_is_gil_enabled", None)  # since Python 3.13
if _is_gil_enabled is not None and not _is_gil_enabled():
    _warnings.warn(
        "resilience does not support Python without the GIL: its counters and permits may be wrong; use a build with "
        "the GIL, or PYTHON_GIL=1",
        ResilienceWarning,
        stacklevel=2,
    )
_mode: Any = _os.environ.get("RESILIENCE_MODE")
if _mode:
    try:
        set_mode(_mode)
    except ValueError as _error:
        _warnings.warn(f"RESILIENCE_MODE is ignored: {_error}", ResilienceWarning, stacklevel=2)
