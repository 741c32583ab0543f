"""The event classes: frozen dataclasses that describe what happened to a call or to a policy.

All times and durations are in seconds. `mode` is SHADOW for what a policy in shadow mode would have done.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from resilience._outcome.allowlist import Failure
from resilience._util.values import Value
from resilience.errors import BadResult, RejectReason


class Mode(StrEnum):
    """Whether a policy takes effect."""

    ENFORCE = "enforce"
    """The policy takes effect."""
    SHADOW = "shadow"
    """The policy decides and publishes events, but does not affect the call."""
    OFF = "off"
    """The policy is not part of the chain: it neither counts nor rejects."""


ModeName: TypeAlias = "Mode | Literal['enforce', 'shadow', 'off']"
"""A mode, or its name."""


class Outcome(StrEnum):
    """How a call or an attempt ended. REJECTED and FALLBACK apply to calls only."""

    OK = "ok"
    """It returned a value, or raised an exception that is a known answer."""
    ERROR = "error"
    """It raised an exception that the pipeline's allowlist does not list."""
    FAILED = "failed"
    """It failed, by the pipeline's allowlist."""
    REJECTED = "rejected"
    """A policy rejected it."""
    TIMED_OUT = "timed_out"
    """It was cut at its deadline, also while it waited for a policy, or returned a value after it."""
    ABANDONED = "abandoned"
    """It was cancelled, ended by another BaseException, or ended before the dependency was called."""
    FALLBACK = "fallback"
    """A Substitute replaced its outcome."""


class GiveUpReason(StrEnum):
    """Why a Retry made no further attempt."""

    ATTEMPTS = "attempts"
    """No attempts are left."""
    STOP = "stop"
    """The stop condition was met."""
    DEADLINE = "deadline"
    """The wait would end at or after the deadline."""
    BUDGET = "budget"
    """The retry budget is empty."""
    NOT_IDEMPOTENT = "not_idempotent"
    """The call is not idempotent, and may have been processed."""
    NOT_RETRYABLE = "not_retryable"
    """The failure is not retryable, such as one that the server declares final."""
    BODY_NOT_REPLAYABLE = "body_not_replayable"
    """The request body cannot be sent again."""
    RETRY_AFTER = "retry_after"
    """The server asks for a longer wait than `max_retry_after`."""
    NESTED = "nested"
    """An inner Retry has given up on the failure already, or the request being handled is a retry of its caller."""


class TimeoutScope(StrEnum):
    """What a deadline that passed applied to."""

    CALL = "call"
    """The whole call: a Timeout outside a Retry, or in a pipeline without one."""
    ATTEMPT = "attempt"
    """One attempt: a Timeout inside a Retry."""
    AMBIENT = "ambient"
    """The caller's deadline, which was in force when the call was made."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Event(Value):
    """Base class of the events.

    Attributes:
        pipeline: the name of the pipeline; empty if it has none.
        policy: the name of the policy in that pipeline; empty if the event is not about a policy.
        operation: the name of the operation: the one given to `bind`, or else the name of the function.
        target: the dependency that is called, such as a host, without the user info and the query of a URL; None if
            unknown.
        at: when it happened, in seconds of the monotonic clock.
    """

    pipeline: str
    policy: str
    operation: str
    target: str | None
    at: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetryScheduled(Event):
    """An attempt failed, and another attempt is scheduled.

    Attributes:
        attempt: the number of the failed attempt, from 1.
        wait: the time until the next attempt, in seconds.
        failure: the failure.
        mode: the mode of the Retry.
        max_attempts: the greatest number of attempts; None for no limit.
        error_type: the type of the exception, such as "ConnectionError" or "httpx.ConnectError"; for a bad result, the
            type of the value.
    """

    attempt: int
    wait: float
    failure: Failure
    mode: Mode = Mode.ENFORCE
    max_attempts: int | None = None
    error_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetryGivenUp(Event):
    """A Retry made no further attempt after a failure.

    Attributes:
        attempts: the number of attempts made, >= 1.
        elapsed: the time since the first attempt began, in seconds.
        reason: why it gave up.
        max_attempts: the greatest number of attempts; None for no limit.
        error_type: the type of the last exception or bad result, as in RetryScheduled.
    """

    attempts: int
    elapsed: float
    reason: GiveUpReason
    max_attempts: int | None = None
    error_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttemptEnded(Event):
    """One attempt, which is one call of the dependency, ended.

    Attributes:
        attempt: the number of the attempt, from 1.
        outcome: how it ended.
        elapsed: its duration, in seconds.
    """

    attempt: int
    outcome: Outcome
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallEnded(Event):
    """One logical call ended, with all its attempts and waits.

    Attributes:
        outcome: how it ended.
        attempts: the number of attempts made; 0 if the dependency was not called.
        elapsed: its duration, in seconds.
    """

    outcome: Outcome
    attempts: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedOut(Event):
    """A deadline passed.

    Attributes:
        scope: what the deadline applied to.
        timeout: the seconds that the Timeout grants; None if they vary, or for the caller's deadline.
        late: whether the call was not cut, and its value was returned after the deadline.
        mode: the mode of the Timeout.
    """

    scope: TimeoutScope
    timeout: float | None
    late: bool = False
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rejected(Event):
    """A policy rejected a call.

    Attributes:
        reason: why; None if a custom policy gives no reason.
        retry_after: the seconds after which another call may be admitted; None if unknown.
        mode: the mode of the policy.
        error_type: the type of the RejectedError, such as "BulkheadFullError".
        partition_key: the key of the policy in its Partition; None for the overflow policy, and without a Partition. It
            may be data of a user, so the log does not show it.
    """

    reason: RejectReason | None
    retry_after: float | None
    mode: Mode = Mode.ENFORCE
    error_type: str = ""
    partition_key: object = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Queued(Event):
    """A call would have waited in the queue of a policy, which is in shadow mode and has let it through at once.

    Whether it would have been admitted in time is not known where that depends on when other calls end.

    Attributes:
        wait: the seconds after which the policy would admit it at the earliest; None if that is not known, as in the
            queue of a bulkhead.
        longest: the longest time that it would have waited, in seconds, its deadline aside.
        mode: the mode of the policy.
        partition_key: as in Rejected.
    """

    wait: float | None
    longest: float
    mode: Mode = Mode.SHADOW
    partition_key: object = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FallbackUsed(Event):
    """A Substitute replaced the outcome of a call.

    Attributes:
        age: the age of the earlier result that replaces it, in seconds; None if it is not an earlier result.
        mode: the mode of the Substitute.
    """

    age: float | None = None
    mode: Mode = Mode.ENFORCE


class BreakerState(StrEnum):
    """The state of a circuit breaker."""

    CLOSED = "closed"
    """All calls are admitted, and their endings are counted."""
    OPEN = "open"
    """All calls are rejected until the open time is over."""
    HALF_OPEN = "half_open"
    """A limited number of calls is admitted as probes."""
    ISOLATED = "isolated"
    """All calls are rejected: opened manually, until it is closed or reset manually."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BreakerChanged(Event):
    """The state of a circuit breaker changed. It is published in every pipeline that the breaker is part of.

    `operation` is empty unless the arrival of a call caused the change, and `target` None unless that or the key in a
    Partition tells it.

    Attributes:
        previous: the state before.
        state: the state now.
        manual: whether the change was made manually.
        failure_rate: the share of failures, from 0 to 1, among the calls of the breaker's snapshot; in an open breaker,
            the calls that opened it.
        why: what opened the breaker, in words; empty for other changes.
        mode: the mode of the breaker; in shadow mode it rejects no calls.
        partition_key: as in Rejected.
    """

    previous: BreakerState
    state: BreakerState
    manual: bool
    failure_rate: float
    why: str = ""
    mode: Mode = Mode.ENFORCE
    partition_key: object = None


def type_name(error: Exception) -> str:
    """Return the `error_type` of an exception: built-in types and those of `resilience` without their module."""
    subject: object = error.result if isinstance(error, BadResult) else error
    kind = type(subject)
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "resilience") else f"{module}.{kind.__qualname__}"
