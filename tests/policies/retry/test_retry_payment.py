"""What retries cost: attempts that are made and that are not, successes, and a budget of a Retry's own."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Allowlist, Pipeline, Retry, RetryBudget, backoff
from resilience.events import Event, RetryScheduled
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import Failing, down
from tests.support.turnstile import Turnstile


def test_a_retry_that_was_made_is_paid_for_though_a_drain_begins_while_it_runs() -> None:
    budget = RetryBudget(0.2, 10)
    pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), budget=budget, name="drained-in-an-attempt")
    made: list[int] = []

    def fail() -> None:
        made.append(1)
        if len(made) == 2:
            pipeline.drain(0)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        pipeline.call(fail)

    assert len(made) == 2
    assert budget.tokens == 9


def test_a_retry_that_is_not_made_is_refunded_to_whom_it_was_taken_from() -> None:
    first, second = RetryBudget(0.2, 10, initial=5), RetryBudget(0.2, 10, initial=5)
    retry = Retry(3, wait=backoff.fixed(3600), budget=first)
    pipeline: Pipeline[Any] = Pipeline(retry, name="paid-by-another")

    def swap(event: Event) -> None:
        assert first.tokens == 4
        retry.update(budget=second)
        pipeline.drain(0)

    def fail() -> None:
        raise ConnectionError

    with pipeline.subscribe(swap, events=[RetryScheduled]), pytest.raises(ConnectionError):
        pipeline.call(fail)

    assert (first.tokens, second.tokens) == (5, 5)


def test_a_retry_that_a_drain_prevents_is_neither_paid_nor_announced() -> None:
    budget = RetryBudget(capacity=5)
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(1)), budget=budget)

    def draining() -> None:
        pipeline.drain(0)
        raise ConnectionError("down")

    with Recorder(pipeline) as recorder, pytest.raises(ConnectionError) as caught:
        pipeline.call(draining)

    assert budget.tokens == 5
    assert recorder.of(RetryScheduled) == []
    assert caught.value.__notes__ == ["resilience: attempt 2 not made: draining"]


def test_an_attempt_that_was_not_made_is_not_paid_for(virtual_clock: VirtualClock) -> None:
    gate = Turnstile(room=0)

    class ClosesAfterOne(Turnstile):
        def settle(self, token: Any, ending: Any) -> None:
            pass  # the one permit stays out

    gate = ClosesAfterOne(room=0)
    budget = RetryBudget(capacity=5)
    pipeline = Pipeline(Retry(3), gate, budget=budget)

    with pytest.raises(ConnectionError) as caught:
        pipeline.call(down)

    assert "attempt 2 not made: bulkhead full" in caught.value.__notes__[0]
    assert budget.tokens == 5


def test_the_budget_of_a_retry_of_its_own_is_shown_and_reset(virtual_clock: VirtualClock) -> None:
    retry = Retry(2, budget=RetryBudget(capacity=3))
    pipeline = Pipeline(retry, Retry(1))
    with pytest.raises(ConnectionError):
        pipeline.call(down)

    assert pipeline.snapshot()["policies"]["retry"] == {"budget": {"tokens": 2.0, "capacity": 3.0}}
    assert pipeline.snapshot()["policies"]["retry_2"] == {}
    pipeline.reset()

    assert pipeline.snapshot()["policies"]["retry"] == {"budget": {"tokens": 3.0, "capacity": 3.0}}


class CardDeclined(Exception):
    pass


def test_an_answer_by_the_own_list_of_a_retry_pays() -> None:
    budget = RetryBudget(0.2, initial=0)
    pipeline = Pipeline(Retry(on=Allowlist(ConnectionError, answers=(CardDeclined,))), budget=budget)

    with pytest.raises(CardDeclined):
        pipeline.call(Failing(error=CardDeclined))

    assert budget.tokens == pytest.approx(0.2)
