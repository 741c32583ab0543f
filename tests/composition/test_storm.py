"""A storm of calls through Timeout, Retry, Bulkhead and CircuitBreaker in one pipeline."""

from __future__ import annotations

import pytest

from resilience import Bulkhead, CircuitBreaker, Pipeline, RejectedError, Retry, Timeout, backoff
from tests.support.storm import LIMIT, ROOM, Storm


@pytest.mark.slow
def test_a_storm_through_the_whole_pipeline_loses_nothing() -> None:
    bulkhead = Bulkhead(LIMIT, queue=ROOM, max_wait=0.001)
    breaker = CircuitBreaker(
        0.05, 5, window=0.5, consecutive_failures=2, open_for=0.002, max_open_for=0.005, probe_timeout=0.05
    )
    storm = Storm(bulkhead)
    storm.pipeline = Pipeline(
        Timeout(60), Retry(2, wait=backoff.fixed(0.0005), budget=None), bulkhead, breaker, Timeout(30)
    )

    storm.rage()
    print(dict(storm.ended), breaker.snapshot())

    assert bulkhead.snapshot() == {"in_flight": 0, "queued": 0, "limit": LIMIT, "peak": LIMIT}
    assert (storm.inside, storm.most) == (0, LIMIT)
    assert storm.pipeline.snapshot()["in_flight"] == 0
    assert breaker.snapshot()["opens"] > 0
    breaker.update(open_for=0.001, max_open_for=0.001)
    for _ in range(10_000):
        try:
            storm.pipeline.call(int)
        except RejectedError:
            continue
        if breaker.state == "closed":
            break
    assert breaker.state == "closed"
