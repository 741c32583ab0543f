"""The exceptions that `resilience` raises.

    ResilienceError(Exception)
      RejectedError                  a policy rejected the call: the dependency was not called
        CircuitOpenError             the circuit breaker is open
        BulkheadFullError            no permit was free, or the wait for one was too long
        RateLimitedError             the rate limit has no slot in time
      DeadlineExceededError          the deadline passed; also a TimeoutError
    CarriedResult(Exception)         a returned value that is raised; only inside a pipeline
      BadResult                      an allowlist lists it as a failure
      LateResult                     it was returned after the deadline
    UsageError(TypeError)            the function or hook cannot be used in this way
    ResilienceWarning(UserWarning)   the configuration cannot have the intended effect

A failure of the dependency itself is raised as the dependency's own exception, never wrapped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

__all__ = [
    "BadResult",
    "BulkheadFullError",
    "CarriedResult",
    "CircuitOpenError",
    "DeadlineExceededError",
    "LateResult",
    "RateLimitedError",
    "RejectReason",
    "RejectedError",
    "ResilienceError",
    "ResilienceWarning",
    "UsageError",
]


class RejectReason(StrEnum):
    """Why a policy rejected a call."""

    OPEN = "open"
    """The circuit breaker is open, or half-open with all its probes in flight."""
    ISOLATED = "isolated"
    """The circuit breaker was opened manually, by `isolate()`."""
    FULL = "full"
    """All permits are in use, and the queue is full or there is none."""
    QUEUE_TIMEOUT = "queue_timeout"
    """The call waited in the queue for its longest allowed time (`max_wait`)."""
    ABANDONED_FULL = "abandoned_full"
    """As many threads as `max_abandoned` allows were abandoned at their deadline and still run."""
    RATE = "rate"
    """The rate limit has no slot in time."""
    COOLDOWN = "cooldown"
    """The server asked for a pause, which does not end in time."""
    DRAINING = "draining"
    """The pipeline is drained, or the client was closed."""
    DEADLINE = "deadline"
    """The deadline is too near for the call to be admitted in time."""


class ResilienceError(Exception):
    """Base class of the exceptions that mean that the library ended a call.

    Attributes:
        unprocessed: True if the dependency was certainly not called; False if it may have processed the call.
    """

    unprocessed: bool = False


class RejectedError(ResilienceError):
    """A policy rejected the call. The dependency was not called, so `unprocessed` is True.

    Args:
        message: what happened, why, and what to do.
        policy: the name of the policy that rejected the call.
        pipeline: the name of the pipeline that the policy is part of.
        reason: why the call was rejected; None if a custom policy gives no reason.
        retry_after: the seconds after which another call may be admitted; None if unknown.
    """

    unprocessed = True

    def __init__(
        self,
        message: str = "the call was rejected",
        *,
        policy: str = "",
        pipeline: str = "",
        reason: RejectReason | None = None,
        retry_after: float | None = None,
    ) -> None:
        if not self.args:  # otherwise `BaseException.__new__` has set the message already
            super().__init__(message)
        self.policy = policy
        self.pipeline = pipeline
        self.reason = reason
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open, isolated, or half-open with all its probes in flight.

    `retry_after` is the time in seconds until an open breaker admits a probe; None in the other states.
    """


class BulkheadFullError(RejectedError):
    """All permits are in use, and the queue is full or the wait in it was too long.

    Also raised by a Timeout with `thread=True` when `max_abandoned` abandoned threads still run.
    """


class RateLimitedError(RejectedError):
    """The rate limit has no slot in time, or the server asked for a pause that does not end in time.

    `retry_after` is the time in seconds until the next slot, or until the end of the pause.
    """


class DeadlineExceededError(ResilienceError, TimeoutError):
    """The deadline of the call passed.

    Args:
        message: which deadline passed, and when.
        unprocessed: True if the deadline passed before the dependency was called (on entry, or in a queue).
        policy: the name of the policy that set the deadline; empty for an inherited deadline.
        pipeline: the name of the pipeline of that policy; for an inherited deadline, the one that the call was in.
        scored: whether a circuit breaker counts it as a failure. False if the caller's deadline cut the call before it
            had run for half of the pipeline's shortest Timeout: even a healthy dependency might not have answered.
    """

    def __init__(
        self,
        message: str = "the deadline has passed",
        *,
        unprocessed: bool = False,
        policy: str = "",
        pipeline: str = "",
        scored: bool = True,
    ) -> None:
        super().__init__(message)
        self.unprocessed = unprocessed
        self.scored = scored
        self.policy = policy
        self.pipeline = pipeline


class CarriedResult(Exception):
    """A returned value that is raised as an exception, so that all policies handle exceptions only.

    It exists only inside a pipeline, which returns the value to the caller.

    Args:
        result: the value.
    """

    _description = "a result"

    def __init__(self, result: Any) -> None:
        super().__init__(f"{self._description} of type {type(result).__name__}")
        self.result: Any = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,), self.__dict__


class BadResult(CarriedResult):
    """A returned value that an allowlist lists as a failure, such as an HTTP 503 response.

    It exists only inside a pipeline: hooks of policies see it as `Ending.error`.

    Args:
        result: the value.
    """

    _description = "a bad result"


class LateResult(CarriedResult):
    """A value that was returned after the deadline. The caller gets it; policies and events see a timed out call.

    Args:
        result: the value.
        scored: whether a circuit breaker counts it as a failure; see `DeadlineExceededError`.
    """

    _description = "a late result"

    def __init__(self, result: Any, *, scored: bool = True) -> None:
        super().__init__(result)
        self.scored = scored


class UsageError(TypeError):
    """A function or hook cannot be used in this way, such as a generator function or an async hook in a plain call.

    It is a programming error: it is never a failure of the dependency and never retried.
    """


class ResilienceWarning(UserWarning):
    """A configuration that is valid, but cannot have the effect that it appears to have."""
