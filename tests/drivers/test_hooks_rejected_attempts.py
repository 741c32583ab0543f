"""Which refusals say that another attempt was not made, so that the last real failure comes out."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import (
    Call,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Gate,
    Pipeline,
    Retry,
    RetryBudget,
    backoff,
)
from tests.support.functions import Failing

NOW = backoff.none()


def test_a_refusal_that_the_function_met_is_not_one_of_the_attempt() -> None:
    breaker = CircuitBreaker()
    audit: Pipeline[Any] = Pipeline(breaker, name="audit-that-is-down")
    breaker.isolate()
    budget = RetryBudget(0.2, 10)
    pay: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), budget=budget, name="pay-and-audit")
    charges: list[int] = []

    @Pipeline(Retry(3, wait=backoff.none()), name="around-pay").bind(idempotent=False)
    @pay.bind(idempotent=False)
    def charge() -> None:
        if budget.tokens == 10:
            raise ConnectionRefusedError("nothing was sent")
        charges.append(1)
        audit.call(print)

    with pytest.raises(CircuitOpenError) as caught:
        charge()

    assert charges == [1]
    assert budget.tokens == 9, "a retry was made"
    assert not hasattr(caught.value, "__notes__")


def test_a_refusal_by_what_guards_the_function_itself_is_one_of_the_attempt() -> None:
    calls: list[int] = []

    @Retry(5, wait=backoff.none())
    @CircuitBreaker(consecutive_failures=4)
    def fetch_stacked() -> None:
        calls.append(1)
        raise ConnectionError("down")

    with pytest.raises(ConnectionError) as caught:
        fetch_stacked()

    assert len(calls) == 2
    assert caught.value.__notes__ == ["resilience: attempt 3 not made: circuit open"]


class TooLateForTheSecond(Gate[None]):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def admit(self, call: Call) -> None:
        self.asked += 1
        if self.asked > 1:
            raise DeadlineExceededError("the deadline passed in the queue", unprocessed=True)


def test_a_deadline_before_the_second_attempt_does_not_hide_the_failure_of_the_first() -> None:
    with pytest.raises(ConnectionError) as caught:
        Pipeline(Retry(wait=NOW), TooLateForTheSecond()).call(Failing())

    assert caught.value.__notes__ == ["resilience: attempt 2 not made: deadline passed"]
