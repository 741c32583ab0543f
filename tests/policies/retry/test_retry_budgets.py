"""Retries and their budget."""

from contextlib import suppress

import pytest

from resilience import Allowlist, Failure, Pipeline, Retry, RetryBudget
from resilience.events import GiveUpReason
from tests.policies.retry.helpers import Down, gives_up, listing

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@pytest.mark.usefixtures("clock")
class TestBudgets:
    def test_the_pipelines_is_shared_by_its_policies_and_pipelines(self) -> None:
        budget = RetryBudget(initial=3)
        for _ in range(2):
            with suppress(ConnectionError):
                Pipeline(Retry(), budget=budget).call(Down(default=ConnectionError))
        assert budget.tokens == 0

    def test_none_has_no_limit(self) -> None:
        down = Down(default=ConnectionError)
        with suppress(ConnectionError):
            Pipeline(Retry(50), budget=None).call(down)
        assert down.calls == 50

    def test_own(self) -> None:
        own, shared = RetryBudget(initial=1), RetryBudget()
        down = Down(default=ConnectionError)
        with suppress(ConnectionError):
            Pipeline(Retry(budget=own), budget=shared).call(down)
        assert (down.calls, own.tokens, shared.tokens) == (2, 0, 10)

    def test_own_none(self) -> None:
        down = Down(default=ConnectionError)
        pipeline = Pipeline(Retry(50, budget=None))
        with suppress(ConnectionError):
            pipeline.call(down)
        assert down.calls == 50
        assert isinstance(pipeline.budget, RetryBudget)
        assert pipeline.budget.tokens == 10

    def test_successes_and_answers_pay_in(self) -> None:
        budget = RetryBudget(ratio=0.5, initial=0)
        pipeline = Pipeline(Retry(), budget=budget, failures=Allowlist(ConnectionError, answers=(KeyError,)))
        assert pipeline.call(Down()) == "fine"
        with suppress(KeyError):
            pipeline.call(Down(KeyError()))
        with suppress(ValueError):
            pipeline.call(Down(ValueError()))
        assert budget.tokens == 1

    def test_grpc(self) -> None:
        budget = RetryBudget.grpc(max_tokens=4)
        pipeline = Pipeline(Retry(), name="quotes", budget=budget)
        words = "the retry budget is empty"
        gives_up(pipeline, Down(default=ConnectionError), GiveUpReason.BUDGET, words, attempts=2)
        assert budget.tokens == 2

    def test_grpc_pays_for_the_last_failure_too_but_not_for_uncounted_ones(self) -> None:
        budget = RetryBudget.grpc()
        with suppress(ConnectionError):
            Pipeline(Retry(), budget=budget).call(Down(default=ConnectionError))
        assert budget.tokens == 7
        pipeline = Pipeline(Retry(), budget=budget, failures=listing(Failure(counted=False)))
        with suppress(ConnectionError):
            pipeline.call(Down(default=ConnectionError))
        assert budget.tokens == 7
