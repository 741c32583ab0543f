"""The settings of a Retry: their validation, and their update."""

from contextlib import suppress
from typing import Any, cast

import pytest

from resilience import Bulkhead, FailureKind, Partition, Pipeline, Retry, RetryBudget, backoff
from tests.policies.retry.helpers import Down

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"attempts": 0}, ValueError),
            ({"attempts": -1}, ValueError),
            ({"attempts": 2.0}, TypeError),
            ({"attempts": True}, TypeError),
            ({"attempts": "3"}, TypeError),
            ({"wait": 1.0}, TypeError),
            ({"wait": {"never": backoff.none()}}, ValueError),
            ({"wait": {FailureKind.TIMEOUT: None}}, TypeError),
            ({"wait": dict.fromkeys(FailureKind, 1.0)}, TypeError),
            ({"on": KeyboardInterrupt}, TypeError),
            ({"on": 5}, TypeError),
            ({"budget": 0.2}, TypeError),
            ({"max_retry_after": -1}, ValueError),
            ({"max_retry_after": float("nan")}, ValueError),
            ({"max_retry_after": "60"}, TypeError),
            ({"nested": 1}, TypeError),
            ({"name": 5}, TypeError),
            ({"mode": "loud"}, ValueError),
        ],
    )
    def test_wrong(self, wrong: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error, match=next(iter(wrong))):
            Retry(**wrong)

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"attempts": 5, "max_retry_after": -1}, ValueError),
            ({"attempts": 5, "nested": "no"}, TypeError),
            ({"attempts": 5, "mode": "loud"}, ValueError),
            ({"attempts": 5, "mode": "off", "tries": 3}, TypeError),
            ({"mode": "off", "attempts": 0}, ValueError),
            ({"mode": "off", "wait": 5}, TypeError),
        ],
    )
    def test_a_failed_update_changes_nothing(self, wrong: dict[str, Any], error: type[Exception]) -> None:
        retry = Retry()
        before, settings = retry.describe(), retry.settings
        with pytest.raises(error):
            retry.update(**wrong)
        assert retry.describe() == before
        assert retry.settings is settings

    @pytest.mark.usefixtures("clock")
    def test_update(self) -> None:
        retry = Retry(wait=backoff.none())
        pipeline = Pipeline(retry, budget=None)
        for attempts in (1, 7):
            retry.update(attempts=attempts)
            down = Down(default=ConnectionError)
            with suppress(ConnectionError):
                pipeline.call(down)
            assert down.calls == attempts

    @pytest.mark.usefixtures("clock")
    def test_update_of_what_counts(self) -> None:
        retry = Retry()
        pipeline = Pipeline(retry)
        retry.update(on=KeyError)
        assert pipeline.call(Down(KeyError())) == "fine"
        assert retry.failures is not None

    def test_the_first_attempts_argument_is_positional(self) -> None:
        assert Retry(7).settings.attempts == 7
        assert Retry(None).settings.attempts == Retry().settings.attempts == 3

    def test_the_default_wait(self) -> None:
        settings = Retry().settings
        assert repr(settings.only) == "full_jitter(base=0.1, cap=10, factor=2)"
        assert settings.max_retry_after == 60.0
        assert repr(Retry()) == "Retry()"

    def test_a_budget_may_be_one_for_each_key(self) -> None:
        budgets, wrong = Partition(RetryBudget), cast("Any", Partition(lambda: Bulkhead(1)))
        assert Retry(budget=budgets).settings.budget is budgets
        with pytest.raises(TypeError, match="budget must be a RetryBudget, a Partition of RetryBudgets, or None"):
            Retry(budget=wrong)
