"""Batch jobs: what is sent again and what is not, plainly and in tasks."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    FailureKind,
    Hedge,
    Partition,
    Pipeline,
    RejectedError,
    RejectReason,
    Retry,
    RetryBudget,
    Timeout,
    UsageError,
    backoff,
)
from resilience._call.ambient import InboundRequest
from resilience._util.clock import FOREVER, clock
from resilience.events import GiveUpReason, RetryGivenUp, RetryScheduled
from resilience.jobs import BatchError, BatchResult, Failed, ItemStatus, aretry_failed, retry_failed
from resilience.testing import Recorder, virtual_time
from tests.jobs.ways import Way, each_batch
from tests.support.cancellation import RUNNERS, Report, Scenario
from tests.support.functions import AppError
from tests.support.loops import Run, each_loop

NOW = backoff.none()


class Server:
    """Takes batches of strings. Those in `failing` fail so often, with the outcome that it gives."""

    def __init__(
        self, failing: dict[str, int] | None = None, outcome: Callable[[], Any] = lambda: Failed("busy")
    ) -> None:
        self.failing = dict(failing or {})
        self.outcome = outcome
        self.batches: list[str] = []
        self.at: list[float] = []

    def __call__(self, batch: list[str]) -> list[Any]:
        self.batches.append("".join(batch))
        self.at.append(clock.monotonic())
        outcomes: list[Any] = []
        for item in batch:
            left = self.failing.get(item, 0)
            self.failing[item] = left - 1
            outcomes.append(self.outcome() if left > 0 else item.upper())
        return outcomes


def raising(*errors: Exception | None) -> Callable[[list[str]], list[str]]:
    """A call that raises these one after the other, and where there is None or no more, succeeds."""
    left = list(errors)

    def call(batch: list[str]) -> list[str]:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return [item.upper() for item in batch]

    return call


def shown(result: BatchResult[Any, Any]) -> dict[str, tuple[str, int, str | None]]:
    return {one.item: (str(one.status), one.attempts, one.gave_up) for one in result.items}


@each_batch
def test_only_the_failed_items_are_sent_again_and_the_order_is_kept(way: Way) -> None:
    server = Server({"b": 1, "d": 2})

    result = way("abcde", server)

    assert server.batches == ["abcde", "bd", "d"]
    assert [one.result for one in result.succeeded] == ["A", "B", "C", "D", "E"]
    assert [one.position for one in result.items] == [0, 1, 2, 3, 4]
    assert [one.attempts for one in result.items] == [1, 2, 1, 3, 1]
    assert (result.failed, result.rounds, result.error) == ([], 3, None)
    result.raise_for_failed()


@each_batch
def test_the_failed_items_of_several_batches_go_into_one(way: Way) -> None:
    server = Server({"b": 1, "c": 1, "e": 1})

    result = way("abcdefg", server, batch_size=3)

    assert server.batches == ["abc", "def", "g", "bce"]
    assert len(result.succeeded) == 7


@each_batch
def test_no_items_make_no_call(way: Way) -> None:
    server = Server()

    assert way("", server).items == []
    assert server.batches == []


@each_batch
def test_the_longest_hint_is_the_least_wait(way: Way) -> None:
    hints = iter([7.0, 20.0, 3.0])
    server = Server(dict.fromkeys("abc", 1), lambda: Failed(retry_after=next(hints), kind=FailureKind.OVERLOAD))

    way("abc", server)

    first, second = server.at
    assert 20.0 <= second - first <= 24.0


@each_batch
def test_what_is_left_has_its_reason(way: Way) -> None:
    outcomes = iter(
        [Failed("invalid", retryable=False), Failed("later", retry_after=3600), "C", Failed("busy"), Failed()]
    )

    def call(batch: list[str]) -> list[Any]:
        return [next(outcomes) for _ in batch]

    result = way("abcd", call, attempts=2)

    assert shown(result) == {
        "a": ("failed", 1, GiveUpReason.NOT_RETRYABLE),
        "b": ("failed", 1, GiveUpReason.RETRY_AFTER),
        "c": ("succeeded", 1, None),
        "d": ("failed", 2, GiveUpReason.ATTEMPTS),
    }
    assert [one.reason for one in result.failed] == ["invalid", "later", None]
    with pytest.raises(BatchError, match=r"3 of 4 items have not succeeded \(3 failed\)") as caught:
        result.raise_for_failed()
    assert caught.value.result is result


@each_batch
def test_hints_may_be_ignored(way: Way) -> None:
    server = Server({"a": 1}, lambda: Failed(retry_after=3600.0))

    assert way("a", server, max_retry_after=0, wait=NOW).failed == []


@each_batch
@pytest.mark.parametrize("idempotent", [None, False, True])
def test_items_without_an_answer_are_sent_again_only_if_that_is_safe(way: Way, idempotent: bool | None) -> None:
    result = way("ab", raising(TimeoutError(), None), idempotent=idempotent)

    if idempotent:
        assert shown(result) == {"a": ("succeeded", 2, None), "b": ("succeeded", 2, None)}
    else:
        assert shown(result) == dict.fromkeys("ab", ("unknown", 1, GiveUpReason.NOT_IDEMPOTENT))
        assert isinstance(result.items[0].reason, TimeoutError)


@each_batch
def test_the_pipeline_may_say_that_the_call_is_idempotent(way: Way) -> None:
    pipeline = Pipeline(Timeout(5.0)).bind(idempotent=True)

    assert way("a", raising(ConnectionError()), pipeline=pipeline).failed == []


@each_batch
def test_items_that_were_surely_not_processed_are_sent_again(way: Way) -> None:
    result = way("ab", raising(ConnectionRefusedError()))

    assert shown(result) == dict.fromkeys("ab", ("succeeded", 2, None))


@each_batch
def test_an_item_that_may_have_been_processed_once_stays_unknown(way: Way) -> None:
    server = Server({"a": 9})

    def call(batch: list[str]) -> list[Any]:
        outcomes = server(batch)
        if len(server.batches) == 1:
            raise ConnectionResetError
        return outcomes

    assert shown(way("a", call, idempotent=True)) == {"a": ("unknown", 3, GiveUpReason.ATTEMPTS)}


@each_batch
def test_a_failed_item_that_may_have_been_processed_is_not_sent_again(way: Way) -> None:
    server = Server({"a": 1}, lambda: Failed("timed out", unprocessed=False))

    assert shown(way("a", server)) == {"a": ("unknown", 1, GiveUpReason.NOT_IDEMPOTENT)}


@each_batch
def test_an_exception_that_is_no_failure_ends_the_job_and_loses_nothing(way: Way) -> None:
    error = AppError("no permission")

    result = way("abcdef", raising(None, error), batch_size=2)

    assert shown(result) == {
        **dict.fromkeys("ab", ("succeeded", 1, None)),
        **dict.fromkeys("cd", ("unknown", 1, None)),
        **dict.fromkeys("ef", ("unsent", 0, None)),
    }
    assert result.error is error
    with pytest.raises(BatchError, match="4 of 6 items have not succeeded") as caught:
        result.raise_for_failed()
    assert caught.value.__cause__ is error


@each_batch
def test_a_rejected_batch_waits_and_is_sent_again(way: Way) -> None:
    breaker = CircuitBreaker(open_for=5.0, max_open_for=5.0, half_open_calls=1)
    pipeline = Pipeline(breaker)
    server = Server()

    def call(batch: list[str]) -> list[Any]:
        if not server.batches:
            for _ in range(5):
                with pytest.raises(ConnectionError), breaker.calling():
                    raise ConnectionError
        return server(batch)

    result = way("abcd", call, pipeline=pipeline, batch_size=2)

    assert server.batches == ["ab", "cd"]
    assert shown(result) == dict.fromkeys("abcd", ("succeeded", 1, None))
    assert server.at[1] - server.at[0] >= 4.0


@each_batch
def test_batches_that_stay_rejected_were_not_sent(way: Way) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()

    result = way("ab", Server(), pipeline=Pipeline(breaker))

    assert shown(result) == dict.fromkeys("ab", ("unsent", 0, GiveUpReason.ATTEMPTS))
    assert isinstance(result.items[0].reason, CircuitOpenError)


@each_batch
@pytest.mark.parametrize("budget", [RetryBudget, lambda: Partition(RetryBudget)])
def test_each_batch_that_is_sent_again_takes_a_token(way: Way, budget: Callable[[], Any]) -> None:
    pipeline = Pipeline(Timeout(5.0), budget=budget())
    server = Server(dict.fromkeys("abcdef", 1))

    result = way("abcdef", server, pipeline=pipeline, batch_size=2, wait=NOW)

    own: Any = pipeline.budget
    tokens = own.tokens if isinstance(own, RetryBudget) else own.overflow.tokens
    assert len(result.succeeded) == 6
    if isinstance(own, RetryBudget):
        assert tokens == pytest.approx(10.0 - 3 + 3 * 0.2)


@each_batch
def test_what_the_budget_does_not_pay_for_is_left(way: Way) -> None:
    budget = RetryBudget(capacity=2.0)
    server = Server(dict.fromkeys("abcdef", 1))

    result = way("abcdef", server, budget=budget, batch_size=2, wait=NOW)

    assert server.batches == ["ab", "cd", "ef", "ab", "cd"]
    assert shown(result) == {
        **dict.fromkeys("abcd", ("succeeded", 2, None)),
        **dict.fromkeys("ef", ("failed", 1, GiveUpReason.BUDGET)),
    }
    assert way("a", Server({"a": 1}), budget=budget).failed[0].gave_up == GiveUpReason.BUDGET
    assert way("a", Server({"a": 1}), budget=None).failed == []


@each_batch
def test_a_rejected_batch_takes_no_token(way: Way) -> None:
    breaker = CircuitBreaker()
    budget = RetryBudget()

    def call(batch: list[str]) -> list[Any]:
        breaker.isolate()
        return [Failed("busy") for _ in batch]

    result = way("ab", call, pipeline=Pipeline(breaker, budget=budget), wait=NOW)

    assert shown(result) == dict.fromkeys("ab", ("failed", 1, GiveUpReason.ATTEMPTS))
    assert budget.tokens == 10.0


@each_loop
def test_the_attempts_of_a_hedge_are_counted(run: Run) -> None:
    sent: list[int] = []

    async def call(batch: list[str]) -> list[str]:
        sent.append(1)
        await (anyio.sleep(60.0) if len(sent) == 1 else anyio.lowlevel.checkpoint())
        return batch

    result = run(lambda: aretry_failed("ab", call, pipeline=Pipeline(Hedge(1.0)), idempotent=True))

    assert shown(result) == dict.fromkeys("ab", ("succeeded", 2, None))


@each_batch
def test_a_retry_in_the_pipeline_deposits_by_itself(way: Way) -> None:
    pipeline = Pipeline(Retry(), budget=RetryBudget(initial=1.0))

    way("ab", Server(), pipeline=pipeline, batch_size=1)

    assert pipeline.budget is not None
    assert pipeline.snapshot()["budget"]["tokens"] == pytest.approx(1.4)


@each_batch
def test_retries_do_not_multiply(way: Way) -> None:
    calls: list[int] = []

    def call(batch: list[str]) -> list[str]:
        calls.append(len(batch))
        raise ConnectionError

    pipeline = Pipeline(Retry(3, wait=NOW))
    result = way("ab", call, pipeline=pipeline, idempotent=True)

    assert calls == [2, 2, 2]
    assert shown(result) == dict.fromkeys("ab", ("unknown", 3, GiveUpReason.NESTED))


@each_batch
def test_a_retry_in_the_pipeline_repeats_only_what_is_safe(way: Way) -> None:
    pipeline = Pipeline(Retry(3, wait=NOW))

    assert shown(way("a", raising(TimeoutError()), pipeline=pipeline)) == {
        "a": ("unknown", 1, GiveUpReason.NOT_IDEMPOTENT)
    }
    # The first attempt of the second round is refused, so that only it is known not to have been processed.
    refused = raising(TimeoutError(), ConnectionRefusedError(), ConnectionRefusedError(), ConnectionRefusedError())
    assert way("a", refused, pipeline=pipeline, idempotent=True).items[0].status is ItemStatus.UNKNOWN


@each_batch
def test_an_answer_to_a_batch_that_the_pipeline_has_repeated_leaves_a_doubt(way: Way) -> None:
    server = Server({"a": 9})

    def call(batch: list[str]) -> list[Any]:
        outcomes = server(batch)
        if len(server.batches) == 1:
            raise ConnectionResetError
        return outcomes

    result = way("ab", call, pipeline=Pipeline(Retry(2, wait=NOW)), idempotent=True, attempts=1)

    assert shown(result) == {"a": ("unknown", 2, GiveUpReason.ATTEMPTS), "b": ("succeeded", 2, None)}


@each_batch
def test_a_request_that_is_a_retry_itself_sends_nothing_again(way: Way) -> None:
    request = InboundRequest.begin(FOREVER, 2)
    try:
        result = way("ab", Server({"a": 1}))
    finally:
        request.end()

    assert shown(result)["a"] == ("failed", 1, GiveUpReason.NESTED)


@each_batch
def test_the_deadline_ends_the_job(way: Way) -> None:
    server = Server({"a": 9}, lambda: Failed(retry_after=4.0))

    result = way("ab", server, timeout=6.0, attempts=9)

    assert server.batches == ["ab", "a"]
    assert shown(result)["a"] == ("failed", 2, GiveUpReason.DEADLINE)


@each_batch
def test_batches_after_the_deadline_are_not_sent(way: Way) -> None:
    def call(batch: list[str]) -> list[str]:
        clock.time.advance(3.0)  # type: ignore[attr-defined]
        return batch

    result = way("abcdef", call, timeout=4.0, batch_size=2)

    assert shown(result) == {
        **dict.fromkeys("abcd", ("succeeded", 1, None)),
        **dict.fromkeys("ef", ("unsent", 0, GiveUpReason.DEADLINE)),
    }


@each_batch
def test_a_deadline_that_has_passed_is_told_at_once(way: Way) -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        way("ab", Server(), timeout=0.0)

    assert caught.value.unprocessed


@each_loop
def test_a_batch_that_is_cut_may_have_been_processed(run: Run) -> None:
    async def hang(batch: list[str]) -> list[str]:
        await anyio.Event().wait()
        return batch

    result = run(lambda: aretry_failed("ab", hang, pipeline=Pipeline(Timeout(2.0))))

    assert shown(result) == dict.fromkeys("ab", ("unknown", 1, GiveUpReason.NOT_IDEMPOTENT))
    assert isinstance(result.items[0].reason, DeadlineExceededError)


@each_batch
def test_a_predicate_that_fails_lists_nothing(way: Way) -> None:
    def broken(error: Exception) -> bool:
        raise KeyError

    result = way("a", raising(ConnectionError()), pipeline=Pipeline(Timeout(2.0), failures=broken))

    assert isinstance(result.error, ConnectionError)


def test_the_error_of_a_job_can_be_pickled() -> None:
    result = retry_failed("ab", Server({"a": 9}), attempts=1)
    with pytest.raises(BatchError) as caught:
        result.raise_for_failed()

    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == "1 of 2 items have not succeeded (1 failed)"
    assert shown(copied.result) == shown(result)


@each_batch
def test_a_drain_ends_the_job(way: Way) -> None:
    pipeline = Pipeline(Timeout(5.0))

    def call(batch: list[str]) -> list[Any]:
        pipeline.drain(0.0)
        return [Failed("busy") for _ in batch]

    assert shown(way("ab", call, pipeline=pipeline)) == dict.fromkeys("ab", ("failed", 1, RejectReason.DRAINING))
    with pytest.raises(RejectedError, match="is being drained"):
        way("ab", call, pipeline=pipeline)


@each_batch
def test_events_tell_of_the_rounds(way: Way) -> None:
    pipeline = Pipeline(Timeout(5.0), name="batch-events").bind(operation="send")
    with Recorder(events=(RetryScheduled, RetryGivenUp)) as recorder:
        way("ab", Server({"a": 9}, lambda: Failed(kind=FailureKind.OVERLOAD)), pipeline=pipeline, attempts=2)

    scheduled, given_up = recorder.events
    assert isinstance(scheduled, RetryScheduled)
    assert (scheduled.pipeline, scheduled.operation, scheduled.failure.kind) == (
        "batch-events",
        "send",
        FailureKind.OVERLOAD,
    )
    assert isinstance(given_up, RetryGivenUp)
    assert (given_up.reason, given_up.attempts) == (GiveUpReason.ATTEMPTS, 2)
    assert given_up.error_type == "resilience.jobs.IncompleteRound"


@each_batch
@pytest.mark.parametrize("outcomes", [[], ["A"], ["A", "B", "C"], {"a": 1, "b": 2}, "AB", {"A", "B"}, None])
def test_outcomes_that_fit_no_batch_are_refused(way: Way, outcomes: Any) -> None:
    result: BatchResult[str, str] = BatchResult()
    with pytest.raises(UsageError, match="must return one outcome for each of the 2 items"):
        way("ab", lambda batch: outcomes, result=result)

    assert [one.status for one in result.items] == [ItemStatus.UNKNOWN] * 2


@each_batch
def test_outcomes_that_would_be_evaluated_after_the_call_are_refused(way: Way) -> None:
    with pytest.raises(UsageError, match="returned an object of type map; make it a list within the function"):
        way("ab", lambda batch: map(str.upper, batch))


def test_items_that_cannot_be_read_leave_the_result_empty() -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise AppError

    result: BatchResult[str, Any] = BatchResult()
    with pytest.raises(AppError):
        retry_failed(items(), Server(), result=result)

    assert retry_failed("a", Server(), result=result).failed == []


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"pipeline": 5}, TypeError, "pipeline must be a Pipeline or a policy, not 5"),
        ({"result": []}, TypeError, "result must be an empty BatchResult, not "),
        ({"attempts": 0}, ValueError, "attempts must be an integer >= 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1"),
        ({"idempotent": 1}, TypeError, "idempotent must be True or False"),
        ({"wait": 3}, TypeError, "wait must be a backoff"),
        ({"timeout": -1}, ValueError, "timeout must be a number >= 0"),
        ({"max_retry_after": -1}, ValueError, "max_retry_after must be"),
        ({"call": None}, TypeError, "call must be a function"),
    ],
)
def test_settings_are_validated(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    arguments: dict[str, Any] = {"call": Server(), **settings}
    with pytest.raises(error, match=match):
        retry_failed("ab", **arguments)


def test_a_result_is_of_one_job() -> None:
    result: BatchResult[str, Any] = BatchResult()
    assert retry_failed("ab", Server(), result=result) is result
    assert repr(result) == "<BatchResult of 2 items: 2 succeeded>"

    with pytest.raises(ValueError, match="must be an empty BatchResult"):
        retry_failed("ab", Server(), result=result)


def test_an_async_call_is_refused_where_nothing_awaits_it() -> None:
    async def call(batch: list[str]) -> list[str]:
        return batch

    unusable: Any = call
    with pytest.raises(UsageError, match="acall"):
        retry_failed("ab", unusable)


def test_a_cancellation_that_the_call_turns_into_a_failure_ends_the_job() -> None:
    calls: list[int] = []

    async def call(batch: list[str]) -> list[str]:
        calls.append(1)
        try:
            await anyio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionRefusedError from None
        return batch

    async def main() -> None:
        task = asyncio.create_task(aretry_failed("ab", call, batch_size=1))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(ConnectionRefusedError):
            await task

    with virtual_time():
        asyncio.run(main())
    assert calls == [1]


@pytest.mark.parametrize("run", RUNNERS)
def test_cancellation_at_any_point_loses_nothing(run: Callable[[Callable[[], Scenario]], Report]) -> None:
    def scenario() -> Scenario:
        server = Server({"b": 1, "c": 2})
        result: BatchResult[str, Any] = BatchResult()
        pipeline = Pipeline(Timeout(9.0), Timeout(5.0))
        accepted: set[str] = set()

        async def call(batch: list[str]) -> list[Any]:
            await anyio.lowlevel.checkpoint()
            outcomes = server(batch)
            accepted.update(item for item, one in zip(batch, outcomes, strict=True) if not isinstance(one, Failed))
            await anyio.lowlevel.checkpoint()
            return outcomes

        def check() -> str | None:
            succeeded = {one.item for one in result.succeeded}
            unknown = {one.item for one in result.items if one.status is ItemStatus.UNKNOWN}
            if pipeline.snapshot()["in_flight"]:
                return "a call is still counted"
            return None if succeeded <= accepted <= succeeded | unknown else f"{accepted}, but {shown(result)}"

        return Scenario(
            lambda: aretry_failed(
                "abcd", call, pipeline=pipeline, batch_size=2, wait=backoff.fixed(0.5), result=result
            ),
            check,
        )

    with virtual_time():
        report = run(scenario)

    report.must_hold()
    assert report.visited >= 8
