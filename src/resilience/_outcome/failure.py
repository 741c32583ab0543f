"""One failure of the dependency, as the policies see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Any

from resilience._util import validation


class FailureKind(StrEnum):
    """What kind of trouble a failure tells of; waits can differ by it."""

    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    OVERLOAD = "overload"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure of the dependency, as the policies see it.

    Args:
        kind: TRANSIENT, TIMEOUT or OVERLOAD.
        retry_after: the server's own hint, seconds to wait at least. A hint that is no finite number >= 0 is
            garbage from outside and becomes None.
        unprocessed: True when the dependency surely did not act on the call, so that even a call which is not
            idempotent may be repeated.
        retryable: False when the server said not to try again.
        counted: False for a failure that says nothing about the dependency's health, such as HTTP 429, which is
            about this caller. It may be retried, and no breaker counts it.
    """

    kind: FailureKind = FailureKind.TRANSIENT
    retry_after: float | None = None
    _: KW_ONLY
    unprocessed: bool = False
    retryable: bool = True
    counted: bool = True

    def __post_init__(self) -> None:
        """Check everything, and drop a hint that cannot be obeyed."""
        object.__setattr__(self, "kind", validation.choice("kind", self.kind, FailureKind))
        validation.flag("unprocessed", self.unprocessed)
        validation.flag("retryable", self.retryable)
        validation.flag("counted", self.counted)
        hint: Any = self.retry_after
        usable = (
            isinstance(hint, int | float) and not isinstance(hint, bool) and validation.is_finite(hint) and hint >= 0
        )
        if hint is not None and not usable:
            object.__setattr__(self, "retry_after", None)


_SEVERITY = (FailureKind.TRANSIENT, FailureKind.TIMEOUT, FailureKind.OVERLOAD)
TRANSIENT = Failure(FailureKind.TRANSIENT)
_TIMEOUT = Failure(FailureKind.TIMEOUT)
_REFUSED = Failure(FailureKind.TRANSIENT, unprocessed=True)


def default_failure(error: Exception) -> Failure:
    """Return what a listed exception tells by its type alone."""
    if isinstance(error, TimeoutError):
        return _TIMEOUT
    if isinstance(error, ConnectionRefusedError):
        return _REFUSED
    return TRANSIENT


def leaves(error: Any) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in the groups within it; of any other exception, itself."""
    pending: list[Any] = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseExceptionGroup):
            pending += reversed(_inside(one))
        else:
            yield one


def _inside(group: Any) -> tuple[Any, ...]:
    exceptions: tuple[Any, ...] = group.exceptions
    return exceptions


def merged(failures: list[Failure]) -> Failure:
    """Return the one failure that several at once are: the kind that asks for the most care, the longest hint."""
    hints = [failure.retry_after for failure in failures if failure.retry_after is not None]
    return Failure(
        kind=max((failure.kind for failure in failures), key=_SEVERITY.index),
        retry_after=max(hints, default=None),
        unprocessed=all(failure.unprocessed for failure in failures),
        retryable=all(failure.retryable for failure in failures),
        counted=any(failure.counted for failure in failures),
    )
