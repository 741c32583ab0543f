"""The errors that `resilience` raises.

    ResilienceError(Exception)
      RejectedError                  a policy refused the call: the dependency was not called
        CircuitOpenError             the circuit breaker is open
        BulkheadFullError            no permit was free, or the wait for one was too long
        RateLimitedError             the rate limit leaves no slot in time
      DeadlineExceededError          time ran out; also a TimeoutError
    BadResult(Exception)             a returned value that an allowlist calls a failure, inside the pipeline
    ResilienceWarning(UserWarning)   the parts of a pipeline cannot work together

Every failure of the dependency itself reaches the caller as the dependency's own exception, never wrapped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class RejectReason(StrEnum):
    """Why a policy refused a call."""

    OPEN = "open"
    ISOLATED = "isolated"
    FULL = "full"
    QUEUE_TIMEOUT = "queue_timeout"
    ABANDONED_FULL = "abandoned_full"
    RATE = "rate"
    DRAINING = "draining"
    DEADLINE = "deadline"


class ResilienceError(Exception):
    """Base of every error that the library itself raises.

    `unprocessed` answers "was my payment sent?": True when the dependency was certainly not called.
    """

    unprocessed: bool = False


class RejectedError(ResilienceError):
    """A policy refused the call, so the dependency was not called.

    Args:
        message: what happened, why, and what to do.
        policy: name of the policy that refused.
        pipeline: name of the pipeline that the policy stands in.
        reason: why, as a fixed word; None where a policy of your own gives none.
        retry_after: seconds after which another try may be let in; None where nobody knows.
    """

    unprocessed = True

    def __init__(
        self,
        message: str = "the call was refused",
        *,
        policy: str = "",
        pipeline: str = "",
        reason: RejectReason | None = None,
        retry_after: float | None = None,
    ) -> None:
        if not self.args:  # else it is there already: an exception keeps what it is made with
            super().__init__(message)
        self.policy = policy
        self.pipeline = pipeline
        self.reason = reason
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open. `retry_after` is the time left until it lets a probe through, in seconds."""


class BulkheadFullError(RejectedError):
    """Every permit is taken, and the queue is full or the wait in it was too long."""


class RateLimitedError(RejectedError):
    """The rate limit has no slot in time. `retry_after` is when the next one comes, in seconds."""


class DeadlineExceededError(ResilienceError, TimeoutError):
    """The time for the call ran out.

    Args:
        message: which limit ran out, and when.
        unprocessed: True when time ran out before the dependency was called (at entry, or in a queue).
        policy: name of the policy whose limit it was; empty for an inherited deadline.
        pipeline: name of the pipeline that the call was in.
        scored: whether it says something about the dependency's health. False where the caller had so little time
            left that even a healthy dependency could not have answered.
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
    """A returned value that travels as an exception, so that every policy deals with one thing only.

    It exists only inside a pipeline, and turns into the value again on the way out.
    """

    words = "a result"

    def __init__(self, result: Any) -> None:
        super().__init__(f"{self.words} of type {type(result).__name__}")
        self.result: Any = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,), self.__dict__


class BadResult(CarriedResult):
    """A returned value that an allowlist counts as a failure, such as an HTTP 503.

    A fallback's `compute` meets it; `result` is the value.
    """

    words = "a bad result"


class LateResult(CarriedResult):
    """A value that came after the deadline. The caller gets it; breakers and metrics score it as timed out.

    `scored` is False where the caller had so little time left that this says nothing about the dependency's health.
    """

    words = "a late result"

    def __init__(self, result: Any, *, scored: bool = True) -> None:
        super().__init__(result)
        self.scored = scored


class UsageError(TypeError):
    """The guarded function is of a kind that cannot be guarded. It is nobody's failure and is never retried."""


class ResilienceWarning(UserWarning):
    """Something is set up in a way that cannot do what it seems to promise."""
