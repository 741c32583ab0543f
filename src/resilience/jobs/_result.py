"""The outcome of each item of a batch job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from resilience import Failure, FailureKind, RejectReason
from resilience.events import GiveUpReason

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class ItemStatus(StrEnum):
    """What is known about an item of a batch job."""

    UNSENT = "unsent"
    """It was in no batch that was sent."""
    UNKNOWN = "unknown"
    """It was sent, and may have been processed: its batch is in flight, or no answer came."""
    FAILED = "failed"
    """It was sent, and was not processed."""
    SUCCEEDED = "succeeded"
    """The dependency has accepted it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of an item that the dependency did not accept, as the call of `retry_failed` returns it.

    Args:
        reason: why, in the words of the dependency, such as an error code or the entry of its response.
        kind: the kind of the failure, which events show.
        retry_after: the shortest wait in seconds before the item may be sent again; None for no such hint, and so is
            what is not a number >= 0, as in hints of servers.
        retryable: False if it would fail again, such as an item that is not valid.
        unprocessed: False if the dependency may have processed the item all the same. Then it is sent again only if
            the job is idempotent.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.
    """

    reason: object = None
    _: KW_ONLY
    kind: FailureKind = FailureKind.TRANSIENT
    retry_after: float | None = None
    retryable: bool = True
    unprocessed: bool = True
    failure: Failure = field(init=False, repr=False)
    """The same as a Failure."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        failure = Failure(
            self.kind, self.retry_after, retryable=self.retryable, unprocessed=self.unprocessed, counted=False
        )
        object.__setattr__(self, "failure", failure)


@dataclass(slots=True, eq=False)
class BatchItem(Generic[ItemT, ResultT]):
    """One item of a batch job, and what is known about it.

    Attributes:
        position: its position among the items of the job, from 0.
        item: the item.
        status: what is known about it.
        attempts: how often it was sent.
        result: what the call returned for it; None unless it has succeeded.
        reason: why the last attempt failed: the reason of a `Failed`, or the exception of the call; None if it has
            succeeded, or was not tried.
        failure: that as a Failure; None also for an exception that the pipeline does not list as a failure.
        gave_up: why it was not sent again; None if it has succeeded, or if an exception has ended the job.
    """

    position: int
    item: ItemT
    status: ItemStatus = ItemStatus.UNSENT
    attempts: int = 0
    result: ResultT | None = None
    reason: object = None
    failure: Failure | None = None
    gave_up: GiveUpReason | RejectReason | None = None
    doubtful: bool = field(default=False, repr=False)
    """Whether an attempt that failed may have been processed."""

    def sent(self) -> None:
        """Note that it is being sent."""
        self.attempts += 1
        self.status = ItemStatus.UNKNOWN

    def succeed(self, result: ResultT) -> None:
        """Note that the dependency has accepted it."""
        self.status = ItemStatus.SUCCEEDED
        self.result = result
        self.reason = self.failure = None

    def fail(self, reason: object, failure: Failure | None, *, doubtful: bool) -> None:
        """Note that an attempt has failed, or was not made; `doubtful` if it may have been processed."""
        self.reason = reason
        self.failure = failure
        self.doubtful = self.doubtful or doubtful
        if self.doubtful:
            self.status = ItemStatus.UNKNOWN
        else:
            self.status = ItemStatus.FAILED if self.attempts else ItemStatus.UNSENT


class BatchResult(Generic[ItemT, ResultT]):
    """The outcome of a batch job. Each item is either in `succeeded` or in `failed`, at any time, and in its order.

    Attributes:
        items: all items, in the order in which they were given.
        rounds: how often items were sent: 1 without retries. A round may consist of several batches.
        error: the exception of the call that has ended the job, since it is no failure of the dependency;
            None for none.

    Pass an empty one as `result=` to have it also if the job is cancelled or interrupted.
    """

    def __init__(self) -> None:
        self.items: list[BatchItem[ItemT, ResultT]] = []
        self.rounds = 0
        self.error: Exception | None = None

    @property
    def succeeded(self) -> list[BatchItem[ItemT, ResultT]]:
        """The items that the dependency has accepted."""
        return [one for one in self.items if one.status is ItemStatus.SUCCEEDED]

    @property
    def failed(self) -> list[BatchItem[ItemT, ResultT]]:
        """All other items; their `status` tells whether they may have been processed."""
        return [one for one in self.items if one.status is not ItemStatus.SUCCEEDED]

    def raise_for_failed(self) -> None:
        """Raise a BatchError if an item has not succeeded.

        Raises:
            BatchError: its cause is the exception that has ended the job, or of the first failed item that has one.
        """
        failed = self.failed
        if not failed:
            return
        causes = [one.reason for one in failed if isinstance(one.reason, Exception)]
        message = f"{len(failed)} of {len(self.items)} items have not succeeded ({_counted(failed)})"
        raise BatchError(message, self) from (self.error or next(iter(causes), None))

    def __repr__(self) -> str:
        return f"<BatchResult of {len(self.items)} items: {_counted(self.items) or 'nothing'}>"


class BatchError(Exception):
    """Some items of a batch job have not succeeded; raised by `BatchResult.raise_for_failed`.

    Args:
        message: how many.
        result: the outcome of the job.
    """

    def __init__(self, message: str, result: BatchResult[Any, Any]) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.result)


def _counted(items: Iterable[BatchItem[ItemT, ResultT]]) -> str:
    """Return how many items have each status, such as "2 failed, 1 unsent"."""
    statuses = [one.status for one in items]
    return ", ".join(f"{statuses.count(status)} {status}" for status in ItemStatus if status in statuses)
