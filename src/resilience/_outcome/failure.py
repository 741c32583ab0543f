"""One failure of the dependency, as the policies see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Any

from resilience._util import validation


class FailureKind(StrEnum):
    """The kind of a failure. A Retry can have a wait strategy for each kind."""

    TRANSIENT = "transient"
    """A temporary error, such as a broken connection."""
    TIMEOUT = "timeout"
    """The dependency did not respond in time."""
    OVERLOAD = "overload"
    """The dependency reports that it is overloaded."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure of the dependency, as the policies see it. Immutable.

    Args:
        kind: a FailureKind, or its value.
        retry_after: the shortest wait before a retry that the server asks for, in seconds >= 0; None for no such hint.
            Any value that is not a finite number >= 0 becomes None: it comes from the server and is ignored.
        unprocessed: True if the dependency certainly did not process the call, so that it may be repeated even if it
            is not idempotent.
        retryable: False if the server asks not to repeat the call.
        counted: False if the failure does not indicate the health of the dependency, such as HTTP 429, which depends
            on the caller. It may be retried, but a circuit breaker does not count it.
        exact: True if the wait is to be `retry_after` exactly, without jitter and backoff, as for the pushback of gRPC.

    Raises:
        TypeError: `kind` is not a string, or one of the flags is not a bool.
        ValueError: `kind` is not the value of a FailureKind.
    """

    kind: FailureKind = FailureKind.TRANSIENT
    retry_after: float | None = None
    _: KW_ONLY
    unprocessed: bool = False
    retryable: bool = True
    counted: bool = True
    exact: bool = False

    def __post_init__(self) -> None:
        """Validate the fields, and drop an unusable hint."""
        object.__setattr__(self, "kind", validation.choice("kind", self.kind, FailureKind))
        validation.flag("unprocessed", self.unprocessed)
        validation.flag("retryable", self.retryable)
        validation.flag("counted", self.counted)
        validation.flag("exact", self.exact)
        hint: Any = self.retry_after
        usable = (
            isinstance(hint, int | float) and not isinstance(hint, bool) and validation.is_finite(hint) and hint >= 0
        )
        if hint is not None and not usable:
            object.__setattr__(self, "retry_after", None)


_SEVERITY = (FailureKind.TRANSIENT, FailureKind.TIMEOUT, FailureKind.OVERLOAD)
TRANSIENT = Failure(FailureKind.TRANSIENT)
_TIMEOUT = Failure(FailureKind.TIMEOUT)
_CONNECTION_REFUSED = Failure(FailureKind.TRANSIENT, unprocessed=True)


def default_failure(error: Exception) -> Failure:
    """Return the failure for a listed exception, by its type alone."""
    if isinstance(error, TimeoutError):
        return _TIMEOUT
    if isinstance(error, ConnectionRefusedError):
        return _CONNECTION_REFUSED
    return TRANSIENT


def leaves(error: Any) -> Iterator[BaseException]:
    """Yield the exceptions of a group and of its nested groups; for any other exception, the exception itself."""
    pending: list[Any] = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseExceptionGroup):
            pending += reversed(_exceptions(one))
        else:
            yield one


def _exceptions(group: Any) -> tuple[Any, ...]:
    exceptions: tuple[Any, ...] = group.exceptions
    return exceptions


def merged(failures: list[Failure]) -> Failure:
    """Merge the failures of an exception group into one: the most severe kind and the longest hint.

    It is unprocessed or retryable if all of them are, and counted if any of them is.
    """
    hints = [failure.retry_after for failure in failures if failure.retry_after is not None]
    return Failure(
        kind=max((failure.kind for failure in failures), key=_SEVERITY.index),
        retry_after=max(hints, default=None),
        unprocessed=all(failure.unprocessed for failure in failures),
        retryable=all(failure.retryable for failure in failures),
        counted=any(failure.counted for failure in failures),
        exact=all(failure.exact for failure in failures),
    )
