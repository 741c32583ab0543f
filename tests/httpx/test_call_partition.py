"""One client talks to many hosts: a Partition has a policy for each host of its requests."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from resilience import Bulkhead, CircuitBreaker, CircuitOpenError, Partition, Pipeline, Retry, RetryBudget, backoff
from resilience.httpx import attach
from tests.httpx.server import Server

PARTITIONS = {"target": "target", "callable": lambda call: call.target}


def pipeline_of(by: Any) -> tuple[Partition[CircuitBreaker], Pipeline[Any]]:
    breakers = Partition(lambda: CircuitBreaker(consecutive_failures=2), by=by)
    retry = Retry(2, wait=backoff.none())
    return breakers, Pipeline(Partition(lambda: Bulkhead(1)), retry, breakers, budget=Partition(RetryBudget))


@pytest.mark.slow
@pytest.mark.parametrize("by", PARTITIONS.values(), ids=PARTITIONS)
def test_a_dead_host_does_not_stop_requests_to_another(by: Any) -> None:
    with Server() as server:
        other = server.url.replace("127.0.0.1", "localhost")
        breakers, pipeline = pipeline_of(by)
        with attach(httpx.Client(), pipeline) as client:
            assert client.get(f"{server.url}/busy").status_code == 503
            with pytest.raises(CircuitOpenError):
                client.get(f"{server.url}/good")
            assert client.get(f"{other}/good").status_code == 200
        states = {key: one["state"] for key, one in breakers.snapshot()["policies"].items()}

    assert states == {"127.0.0.1": "open", "localhost": "closed"}
    shown = pipeline.snapshot()
    assert shown["policies"]["bulkhead"]["policies"]["localhost"]["in_flight"] == 0
    assert set(shown["budget"]["policies"]) == {"127.0.0.1", "localhost"}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_body_that_is_read_keeps_the_policy_of_its_host_in_use(backend: str) -> None:
    async def main() -> None:
        bulkheads = Partition(lambda: Bulkhead(1), idle=1e-9)
        pipeline: Pipeline[Any] = Pipeline(bulkheads)
        async with attach(httpx.AsyncClient(), pipeline) as client:
            async with client.stream("GET", f"{server.url}/big") as response:
                own = bulkheads.of("127.0.0.1")
                assert (own.in_flight, len(bulkheads)) == (1, 1)
                await response.aread()
            assert (own.in_flight, len(bulkheads)) == (0, 0)

    with Server() as server:
        anyio.run(main, backend=backend)
