"""What a pipeline is made of: the names of its policies, look-up by name, description and snapshot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from resilience import Allowlist, Bulkhead, CircuitBreaker, Gate, Pipeline, Policy, Retry, Timeout
from tests.support.policies import Noting, retrying

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestNames:
    @pytest.mark.filterwarnings("ignore:.*leave one out")
    def test_numbering(self) -> None:
        policies = [Retry(), Retry(name="mine"), Retry(), Retry(name="retry_3"), Retry()]
        pipeline = Pipeline(*policies)
        names = ["retry", "mine", "retry_2", "retry_3", "retry_4"]
        assert [one["name"] for one in pipeline.describe()["policies"]] == names
        assert [pipeline[name] for name in names] == policies
        assert pipeline.policies == tuple(policies)

    def test_duplicates(self) -> None:
        with pytest.raises(ValueError, match="mine"):
            Pipeline(Retry(name="mine"), Retry(name="mine"))

    def test_unknown(self) -> None:
        with pytest.raises(KeyError, match="retry"):
            retrying()["breaker"]

    @pytest.mark.parametrize("wrong", [5, Retry, None, "retry"])
    def test_only_policies(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="policies"):
            Pipeline(wrong)

    def test_wrong_budget(self) -> None:
        with pytest.raises(TypeError, match="budget"):
            Pipeline(budget=0.2)  # type: ignore[arg-type]

    @pytest.mark.filterwarnings("ignore:.*leave one out")
    def test_plain_data(self) -> None:
        pipeline = Pipeline(Retry(), Pipeline(Retry(budget=None), Noting()), failures=Allowlist(KeyError), name="plain")
        for data in (pipeline.describe(), pipeline.snapshot(), Pipeline(budget=None).snapshot()):
            assert json.loads(json.dumps(data)) == data
        assert pipeline.describe()["failures"] == "Allowlist(KeyError)"
        assert pipeline.snapshot()["in_flight"] == 0
        assert pipeline.call(lambda: pipeline.snapshot()["in_flight"]) == 1
        assert "plain" in repr(pipeline)


@pytest.mark.filterwarnings("ignore:.*leave one out")
def test_one_object_in_two_places_has_two_names() -> None:
    retry = Retry()

    described = Pipeline(retry, retry).describe()["policies"]

    assert [one["name"] for one in described] == ["retry", "retry_2"]


@pytest.mark.filterwarnings("ignore:.*leave one out")
def test_a_policy_is_found_in_a_pipeline_further_in() -> None:
    retry, other = Retry(name="deep"), Retry()
    pipeline = Pipeline(Pipeline(Timeout(1)), Pipeline(retry, other))

    assert pipeline["deep"] is retry
    with pytest.raises(KeyError, match="pipeline, pipeline_2"):
        pipeline["nowhere"]


class TestGet:
    """A policy is found by its type."""

    def test_the_one_of_that_type(self) -> None:
        breaker, retry = CircuitBreaker(), Retry(name="mine")
        pipeline = Pipeline(retry, breaker, Timeout(1))

        assert pipeline.get(CircuitBreaker) is breaker
        assert pipeline.get(Retry) is retry

    def test_one_of_a_nested_pipeline(self) -> None:
        breaker, retry = CircuitBreaker(), Retry()
        pipeline = Pipeline(Timeout(1), Pipeline(retry, Pipeline(breaker)))

        assert pipeline.get(CircuitBreaker) is breaker
        assert pipeline.get(Retry) is retry

    def test_one_of_a_derived_type(self) -> None:
        class Own(CircuitBreaker):
            pass

        own = Own()

        assert Pipeline(Retry(), own).get(CircuitBreaker) is own
        assert Pipeline(Retry(), own).get(Gate) is own

    def test_there_is_none(self) -> None:
        with pytest.raises(LookupError) as caught:
            Pipeline(Retry(), Pipeline(Timeout(1, name="total"))).get(CircuitBreaker)

        for word in ("CircuitBreaker", "retry", "total"):
            assert word in str(caught.value)
        assert not isinstance(caught.value, KeyError)

    def test_there_are_no_policies_at_all(self) -> None:
        with pytest.raises(LookupError, match="CircuitBreaker"):
            Pipeline[Any]().get(CircuitBreaker)

    @pytest.mark.parametrize(
        "pipeline",
        [
            Pipeline(Bulkhead(1, name="per host"), Retry(), Bulkhead(9, name="in all")),
            Pipeline(Bulkhead(1, name="per host"), Retry(), Pipeline(Bulkhead(9, name="in all"))),
        ],
        ids=["side by side", "nested"],
    )
    def test_there_are_several(self, pipeline: Pipeline[Any]) -> None:
        with pytest.raises(LookupError) as caught:
            pipeline.get(Bulkhead)

        for word in ("2", "Bulkhead", "per host", "in all"):
            assert word in str(caught.value)
        assert "retry" not in str(caught.value)
        for name in ("per host", "in all"):  # as the message advises
            assert isinstance(pipeline[name], Bulkhead)

    def test_of_any_type_there_may_be_one(self) -> None:
        retry = Retry()

        assert Pipeline(retry).get(Policy) is retry
