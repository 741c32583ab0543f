"""`retry_failed`: send items in batches, and send those that have failed again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Never

from resilience import Caller, Partition, RetryBudget, deadline_after
from resilience._call.budget import PIPELINE, Inherit
from resilience._util import validation
from resilience.backoff import Backoff
from resilience.jobs._batch_job import BatchJob, IncompleteRound, ItemRetry
from resilience.jobs._result import BatchResult, Failed, ItemT, ResultT


def retry_failed(
    items: Iterable[ItemT],
    call: Callable[[list[ItemT]], Collection[ResultT | Failed]],
    *,
    pipeline: Caller[Never] | None = None,
    attempts: int = 3,
    batch_size: int | None = None,
    wait: Backoff | None = None,
    timeout: float | None = None,
    budget: RetryBudget | Partition[RetryBudget] | Inherit | None = PIPELINE,
    max_retry_after: float = 60.0,
    idempotent: bool | None = None,
    result: BatchResult[ItemT, ResultT] | None = None,
) -> BatchResult[ItemT, ResultT]:
    """Send items in batches, and send those that have failed again, and only those.

    Args:
        items: the items.
        call: sends a batch, which it gets as a list. It returns a list, or another ordered collection, of one outcome
            for each item, in the order of the batch: a `Failed`, or any other value for an item that has succeeded.
        pipeline: what each batch is sent through; None for no policies. Its failures decide which exceptions of `call`
            are failures.
        attempts: in how many rounds an item is sent at most, >= 1.
        batch_size: the most items in a batch, >= 1; None for one batch of all items.
        wait: the wait between two rounds; None for full jitter from 0.1 s, doubling up to 10 s. The longest hint of the
            failed items is a lower bound of it, with up to a fifth added, as for a Retry.
        timeout: the time for the whole job in seconds, >= 0; None for that of the caller, if there is one.
        budget: the retry budget; by default that of the pipeline, None for no limit. Each batch of the second and later
            rounds takes one token, unless it is rejected; each batch without a failed item adds `ratio`.
        max_retry_after: the longest hint to wait for, in seconds, >= 0. An item with a longer one is not sent again. 0
            ignores hints.
        idempotent: whether items may be sent again that may have been processed, since no answer came; None for the
            value given to `bind`, or else False. It holds for Retries in the pipeline, too.
        result: an empty BatchResult, which is filled as the batches return. It tells what is known also if the job is
            interrupted.

    Returns:
        The BatchResult: each item, with its result, or with the reason why it failed.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.
        UsageError: `call` cannot be used: it is async, or it does not return one outcome for each item.
        RejectedError, DeadlineExceededError: before anything was sent: the pipeline is drained, or the deadline passed.

    An exception of `call` is the reason of all items of its batch. If the pipeline lists it, they are sent again if it
    is certain that they were not processed, or if the job is idempotent; any other exception ends the job. A batch that
    a policy has rejected counts as failed, with the `retry_after` of the rejection as a hint.
    """
    found: BatchResult[ItemT, ResultT] = BatchResult() if result is None else result
    with deadline_after(None if timeout is None else validation.number("timeout", timeout)):
        job = BatchJob(
            found, items, call, pipeline, ItemRetry(attempts, wait, budget, max_retry_after), batch_size, idempotent
        )
        try:
            for attempt in job.attempts if found.items else ():
                with attempt:
                    for batch in job.batches():
                        try:
                            outcomes = job.guard.call(job.sender(batch), [one.item for one in batch])
                        except Exception as error:
                            job.broken(batch, error)
                        else:
                            job.answered(batch, outcomes)
                    job.end_round()
        except IncompleteRound:
            job.give_up()
    return found


async def aretry_failed(
    items: Iterable[ItemT],
    call: Callable[[list[ItemT]], Awaitable[Collection[ResultT | Failed]]],
    *,
    pipeline: Caller[Never] | None = None,
    attempts: int = 3,
    batch_size: int | None = None,
    wait: Backoff | None = None,
    timeout: float | None = None,
    budget: RetryBudget | Partition[RetryBudget] | Inherit | None = PIPELINE,
    max_retry_after: float = 60.0,
    idempotent: bool | None = None,
    result: BatchResult[ItemT, ResultT] | None = None,
) -> BatchResult[ItemT, ResultT]:
    """Do what `retry_failed` does, in a task of asyncio or trio, with an async `call`.

    If the task is cancelled, the cancellation comes out; `result` then tells what is known about each item.
    """
    found: BatchResult[ItemT, ResultT] = BatchResult() if result is None else result
    with deadline_after(None if timeout is None else validation.number("timeout", timeout)):
        job = BatchJob(
            found, items, call, pipeline, ItemRetry(attempts, wait, budget, max_retry_after), batch_size, idempotent
        )
        try:
            if found.items:
                async for attempt in job.attempts:
                    async with attempt:
                        for batch in job.batches():
                            try:
                                outcomes = await job.guard.acall(job.sender(batch), [one.item for one in batch])
                            except Exception as error:
                                job.broken(batch, error)
                            else:
                                job.answered(batch, outcomes)
                        job.end_round()
        except IncompleteRound:
            job.give_up()
    return found
