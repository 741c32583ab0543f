"""What the library tells about itself while it works: frozen event objects, and who gets them.

No event object is built that nobody listens to. What a listener raises is logged once and never reaches the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from resilience._outcome.allowlist import Failure
from resilience.errors import RejectReason


class Mode(StrEnum):
    """How much a policy may do: all, only watch and report, or nothing."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


ModeName: TypeAlias = "Mode | Literal['enforce', 'shadow', 'off']"
"""A mode, or its name."""


class Outcome(StrEnum):
    """How a call or an attempt ended, as events and metrics name it; attempts have no REJECTED and no FALLBACK."""

    OK = "ok"
    ERROR = "error"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"
    FALLBACK = "fallback"


class GiveUpReason(StrEnum):
    """Why a Retry did not try again."""

    ATTEMPTS = "attempts"
    STOP = "stop"
    DEADLINE = "deadline"
    BUDGET = "budget"
    NOT_IDEMPOTENT = "not_idempotent"
    NOT_RETRYABLE = "not_retryable"
    BODY_NOT_REPLAYABLE = "body_not_replayable"
    RETRY_AFTER = "retry_after"
    NESTED = "nested"


class TimeoutScope(StrEnum):
    """What ran out of time: the whole call, one attempt, or the deadline that the caller had set."""

    CALL = "call"
    ATTEMPT = "attempt"
    AMBIENT = "ambient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `at` is in seconds of the ambient monotonic clock."""

    pipeline: str
    policy: str
    operation: str
    target: str | None
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """An attempt failed, and another one follows after `wait` seconds. `attempt` is the one that failed."""

    attempt: int
    wait: float
    failure: Failure
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryGivenUp(Event):
    """A Retry let a failure out, after `attempts` attempts in `elapsed` seconds."""

    attempts: int
    elapsed: float
    reason: GiveUpReason


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded(Event):
    """One call of the dependency ended."""

    attempt: int
    outcome: Outcome
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(Event):
    """One logical call ended, with all its attempts and waits. `attempts` is 0 where nothing was called."""

    outcome: Outcome
    attempts: int
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(Event):
    """Time ran out, or would have in shadow mode. `timeout` is in seconds, None where it is not a Timeout's.

    `late`: the call was not cut; its value came after the deadline.
    """

    scope: TimeoutScope
    timeout: float | None
    late: bool = False
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Event):
    """A policy refused a call, or would have in shadow mode."""

    reason: RejectReason | None
    retry_after: float | None
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackUsed(Event):
    """A substitute stood in, or would have in shadow mode. `age` is in seconds where it is an earlier result."""

    age: float | None = None
    mode: Mode = Mode.ENFORCE


class BreakerState(StrEnum):
    """The states of a circuit breaker; `isolated` is opened by hand."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged(Event):
    """A circuit breaker went from one state to another; every pipeline that it stands in is told.

    `manual`: by hand, not by itself. `failure_rate` is the share of failures, from 0 to 1, among the calls that the
    breaker's snapshot shows: once it has opened, those that made it open. `operation` is empty and `target` None
    unless an arriving call caused the change. `why` says in words what opened it; else it is empty. `mode` is the
    breaker's own: in shadow mode it keeps nobody out.
    """

    previous: BreakerState
    state: BreakerState
    manual: bool
    failure_rate: float
    why: str = ""
    mode: Mode = Mode.ENFORCE
