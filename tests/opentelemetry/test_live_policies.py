"""The policies of live pipelines, for what is measured about them."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Bulkhead, CombinedRateLimit, Partition, Pipeline, RateLimit, Retry, Timeout
from resilience.opentelemetry._live_policies import attempt_timeout, members_of, rate_limits


@pytest.mark.parametrize(
    ("policies", "seconds"),
    [
        ([], None),
        ([Retry()], None),
        ([Timeout(2)], 2.0),
        ([Timeout(2), Timeout(1)], 1.0),
        ([Timeout(2), Retry()], 2.0),
        ([Timeout(2), Retry(), Timeout(1)], 1.0),
        ([Timeout(2), Pipeline[Any](Retry(), Timeout(1))], 1.0),
        ([Retry(), Timeout(1, mode="off")], None),
        ([Retry(), Timeout(1, mode="shadow")], 1.0),
        ([Retry(), Timeout(None, share=0.5)], None),
    ],
    ids=["none", "retry", "one", "two", "total", "both", "nested", "off", "shadow", "share"],
)
def test_the_timeout_of_attempts(policies: list[Any], seconds: float | None) -> None:
    assert attempt_timeout(Pipeline[Any](*policies).engine.info) == seconds


def test_which_policies_are_rate_limits() -> None:
    combined: CombinedRateLimit = RateLimit.all_of(RateLimit(5, name="second"), RateLimit(100, per=60, name="minute"))
    pipeline = Pipeline[Any](
        RateLimit(5),
        Bulkhead(1, queue=1, max_wait=1.0),
        combined,
        Partition(lambda: RateLimit(5), name="by target"),
        Partition(lambda: Bulkhead(5), name="others by target"),
    )

    assert list(rate_limits(pipeline.engine.info)) == ["rate_limit", *combined_names(pipeline, combined), "by target"]


def combined_names(pipeline: Pipeline[Any], policy: object) -> list[str]:
    return [pipeline.engine.info.name_of(policy)]


def test_the_members_of_a_partition() -> None:
    partition = Partition(lambda: RateLimit(5))

    assert members_of(partition) == [partition.overflow]
    assert members_of(3) == [3]
