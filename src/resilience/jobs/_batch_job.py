"""A batch job: which items are sent next, and what becomes of them. Nothing here sends or waits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from typing import Any, Generic, Never

from resilience import (
    Allowlist,
    Call,
    Caller,
    DeadlineExceededError,
    Ending,
    Failure,
    FailureKind,
    Mode,
    RejectedError,
    RejectReason,
    Retry,
    RetryBudget,
    RetryState,
    UsageError,
    backoff,
    new_lock,
    remaining,
)
from resilience._call import retry_marks
from resilience._call.ambient import NOTHING, ambient
from resilience._call.call import CallOptions, PipelineInfo
from resilience._call.callables import name_of
from resilience._call.keyed import Keyed
from resilience._outcome.failure import merged
from resilience._pipeline.engine import Engine
from resilience._runtime import cancellations
from resilience._util import validation
from resilience._util.log_once import hook_failed
from resilience.backoff import Backoff
from resilience.events import GiveUpReason
from resilience.jobs._guard import caller_of
from resilience.jobs._result import BatchItem, BatchResult, Failed, ItemT, ResultT


class IncompleteRound(Exception):
    """A round after which items are to be sent again.

    Args:
        failure: the failures of these items as one, with the longest hint.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__("some items of the batch have failed")
        self.failure = failure


IncompleteRound.__module__ = "resilience.jobs"  # for the events
_INCOMPLETE = Allowlist(IncompleteRound, when=lambda error: getattr(error, "failure", None))


class ItemRetry(Retry):
    """The Retry that repeats the rounds of one job; it remembers why it gave up."""

    def __init__(self, attempts: int, wait: Backoff | None, budget: Any, max_retry_after: float) -> None:
        super().__init__(
            validation.integer("attempts", attempts, low=1),
            wait=wait or backoff.full_jitter(0.1, cap=10.0),
            on=_INCOMPLETE,
            budget=budget,
            max_retry_after=max_retry_after,
        )
        self.gave_up: GiveUpReason | RejectReason | None = None

    def on_success(self, info: PipelineInfo) -> None:
        """Return None: the job itself deposits into the budget, for each batch."""
        del info

    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, state: RetryState) -> None:
        """Note that the pipeline is drained."""
        self.gave_up = RejectReason.DRAINING
        super().on_attempt_rejected(call, ending, error, state)

    def _publish_given_up(self, call: Call, error: Exception, state: RetryState, reason: GiveUpReason) -> float:
        self.gave_up = reason
        return super()._publish_given_up(call, error, state, reason)


class BatchJob(Generic[ItemT, ResultT]):
    """One job: which items are sent next, and what becomes of them. It neither sends nor waits.

    Attributes:
        guard: what batches are sent through.
        attempts: the rounds.
    """

    def __init__(
        self,
        result: BatchResult[ItemT, ResultT],
        items: Iterable[ItemT],
        call: Callable[[list[ItemT]], Any],
        pipeline: Caller[Never] | None,
        retry: ItemRetry,
        batch_size: int | None,
        idempotent: bool | None,
    ) -> None:
        if not callable(call):
            raise TypeError(f"call must be a function that sends a list of items, not {call!r}")
        if batch_size is not None:
            validation.integer("batch_size", batch_size, low=1)
        if idempotent is not None:
            validation.flag("idempotent", idempotent)
        given: Any = result
        if not isinstance(given, BatchResult):
            raise TypeError(f"result must be an empty BatchResult, not {result!r}")
        if result.items:
            raise ValueError("result= must be an empty BatchResult; this one is of another job")
        caller = caller_of(pipeline)
        entry, old = caller.entry()
        self._idempotent = old.idempotent is True if idempotent is None else idempotent
        operation = old.operation or name_of(call)
        self.guard = caller.bind(operation=operation, idempotent=self._idempotent)
        # The items of a round are chosen so that it may be made: whether it is idempotent is decided for each item.
        options = CallOptions(old.pipeline, operation, old.target, True, old.failures)
        self.attempts = entry.retry_block(retry, options)
        self._failures = old.pipeline.failures or old.failures
        self._call = call
        self._retry = retry
        settings: Any = retry.settings
        self._budget = _budget_of(settings.budget_in(old.pipeline), Call.make(options, call, (), {}))
        inner = isinstance(entry, Engine) and entry.composer.has_loop(Mode.ENFORCE)
        self._deposits = not inner
        self._result = result
        result.items.extend([BatchItem[ItemT, ResultT](position, item) for position, item in enumerate(items)])
        self._size = batch_size or max(1, len(result.items))
        self._pending = list(result.items)
        self._inside = NOTHING
        self._lock = new_lock()
        self._in_flight: list[BatchItem[ItemT, ResultT]] | None = None
        self._sends = 0  # of the latest batch
        self._paid = False  # whether that took a token
        self._cancellations = 0

    def batches(self) -> Iterator[list[BatchItem[ItemT, ResultT]]]:
        """Yield the batches of a round. For those that are not sent, note the reason."""
        result = self._result
        self._inside = ambient.get().innermost()
        self._cancellations = cancellations()
        retried = result.rounds > 0
        result.rounds += 1
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), self._size):
            batch = pending[start : start + self._size]
            if result.error is not None:
                return
            if remaining(1.0) <= 0:
                _leave_out(batch, GiveUpReason.DEADLINE)
            # The Retry has withdrawn the token for the first batch of a round.
            elif retried and start and self._budget is not None and not self._budget.withdraw():
                _leave_out(batch, GiveUpReason.BUDGET)
            else:
                self._paid = retried
                yield batch

    def sender(self, batch: list[BatchItem[ItemT, ResultT]]) -> Callable[[list[ItemT]], Any]:
        """Return the function that sends a batch; its items are noted as sent."""
        with self._lock:
            self._in_flight = batch
            self._sends = 0

        def send(items: list[ItemT]) -> Any:
            with self._lock:  # a Hedge calls it from several threads, also when another attempt has won
                if self._in_flight is batch:
                    self._sends += 1
                    for one in batch:
                        one.sent()
            return self._call(items)

        return send

    def answered(self, batch: list[BatchItem[ItemT, ResultT]], outcomes: Any) -> None:
        """Take what the call has returned for a batch."""
        self._landed()
        found = list(outcomes) if _is_list(outcomes) else []
        if len(found) != len(batch):
            what = f"{len(found)} outcomes" if found else f"an object of type {type(outcomes).__name__}"
            if isinstance(outcomes, Iterator):
                what += "; make it a list within the function, so that what it raises is an exception of that"
            raise UsageError(
                f"{name_of(self._call)} must return one outcome for each of the {len(batch)} items, in their order; it "
                f"returned {what}"
            )
        for one, outcome in zip(batch, found, strict=True):
            if isinstance(outcome, Failed):
                one.fail(outcome.reason, outcome.failure, doubtful=not outcome.unprocessed or self._repeated)
                self._repeat(one)
            else:
                one.succeed(outcome)
        if self._budget is not None and self._deposits and not any(isinstance(outcome, Failed) for outcome in found):
            self._budget.deposit()

    def broken(self, batch: list[BatchItem[ItemT, ResultT]], error: Exception) -> None:
        """Take the exception of a batch, or raise it if it ends the job without an outcome."""
        self._landed()
        if isinstance(error, UsageError) or cancellations() > self._cancellations:
            raise error
        if self._budget is not None and self._paid and self._sends == 0:
            self._budget.refund()
        failure = self._classified(error)
        marked = retry_marks.given_up_inside(error, self._inside)
        if failure is None:
            self._result.error = error
        doubtful = self._sends > 0 and (failure is None or not failure.unprocessed or self._repeated)
        for one in batch:
            one.fail(error, failure, doubtful=doubtful)
            if marked:
                one.gave_up = GiveUpReason.NESTED
            elif failure is not None:
                self._repeat(one)

    def _landed(self) -> None:
        """Note that no batch is in flight."""
        with self._lock:
            self._in_flight = None

    @property
    def _repeated(self) -> bool:
        """Whether a Retry or Hedge in the pipeline has sent the batch again that may have been processed before."""
        return self._idempotent and self._sends > 1

    def _classified(self, error: Exception) -> Failure | None:
        """Return the failure that an exception of a batch means for its items; None if it ends the job."""
        if isinstance(error, RejectedError):
            return Failure(FailureKind.OVERLOAD, error.retry_after, unprocessed=True, counted=False)
        if isinstance(error, DeadlineExceededError):
            return Failure(FailureKind.TIMEOUT, unprocessed=error.unprocessed)
        try:
            return self._failures.classify(error)
        except Exception as broken:
            hook_failed("predicate of an allowlist", self._failures, broken)
            return None

    def _repeat(self, one: BatchItem[ItemT, ResultT]) -> None:
        """Send an item again in the next round, or note why not."""
        failure = one.failure or Failure()
        longest = self._retry.settings.max_retry_after
        if not failure.retryable:
            one.gave_up = GiveUpReason.NOT_RETRYABLE
        elif not (failure.unprocessed or self._idempotent):
            one.gave_up = GiveUpReason.NOT_IDEMPOTENT
        elif failure.retry_after is not None and 0 < longest < failure.retry_after:
            one.gave_up = GiveUpReason.RETRY_AFTER
        else:
            self._pending.append(one)

    def end_round(self) -> None:
        """Raise an exception if items are to be sent again."""
        if self._pending and self._result.error is None:
            raise IncompleteRound(merged([one.failure or Failure() for one in self._pending]))

    def give_up(self) -> None:
        """Note why the items that have failed are not sent again."""
        _leave_out(self._pending, self._retry.gave_up)


def _leave_out(items: Iterable[BatchItem[Any, Any]], reason: GiveUpReason | RejectReason | None) -> None:
    for one in items:
        one.gave_up = reason


def _is_list(outcomes: object) -> bool:
    """Return whether an object may be the outcomes of a batch.

    A dict, such as a whole response, is none, a set has no order, and an iterator would be evaluated after the call.
    """
    return isinstance(outcomes, Collection) and not isinstance(outcomes, str | bytes | Mapping | Set)


def _budget_of(budget: RetryBudget | Keyed[RetryBudget] | None, call: Call) -> RetryBudget | None:
    """Return the budget of a job; of a Partition, that for the key of its calls."""
    return budget.policy_of(call) if isinstance(budget, Keyed) else budget
