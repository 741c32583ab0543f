"""The deadline in plain code: a server that is never too slow for a single read ends in time, too."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx
import pytest

from resilience import Bulkhead, DeadlineExceededError, Pipeline, Timeout
from resilience._util.clock import clock
from resilience.httpx import attach
from resilience.httpx._network import BACKEND, DeadlineBackend, bound_network
from resilience.testing import FaultyServer
from tests.httpx.helpers import Script, both_modules

SECONDS = 0.4
SLACK = 0.25


@pytest.fixture(scope="module")
def server() -> Generator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def seconds_of(client: Any, url: str) -> float:
    """Return the seconds after which a request is cut."""
    started = clock.monotonic()
    with pytest.raises(DeadlineExceededError):
        client.get(url)
    return clock.monotonic() - started


@pytest.mark.slow
@both_modules
@pytest.mark.parametrize(
    "path",
    ["/head-drip?interval=0.02", "/hints-forever?interval=0.02", "/drip?interval=0.02", "/stall", "/headers-stall"],
)
def test_a_request_ends_at_its_deadline(server: FaultyServer, module: Any, path: str) -> None:
    bulkhead = Bulkhead(1)
    limits = module.Limits(max_connections=1)
    with attach(module.Client(limits=limits, timeout=30.0), Pipeline(Timeout(SECONDS), bulkhead)) as client:
        assert seconds_of(client, server.url + path) < SECONDS + SLACK
        assert bulkhead.in_flight == 0
        assert client.get(f"{server.url}/ok").status_code == 200


@pytest.mark.slow
@both_modules
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_so_does_one_through_a_proxy_that_does_not_answer(server: FaultyServer, module: Any, scheme: str) -> None:
    client = attach(module.Client(proxy=server.silent_url, timeout=30.0), Pipeline(Timeout(SECONDS)))
    with client:
        assert seconds_of(client, f"{scheme}://target.test") < SECONDS + SLACK


@pytest.mark.slow
@both_modules
def test_without_a_deadline_the_timeouts_of_the_client_apply(server: FaultyServer, module: Any) -> None:
    with attach(module.Client(timeout=SECONDS), Pipeline()) as client, pytest.raises(module.ReadTimeout):
        client.get(f"{server.url}/stall")


@both_modules
def test_the_pool_of_a_client_has_a_network_backend_and_it_is_wrapped_once(module: Any) -> None:
    with module.HTTPTransport() as transport:
        bound_network(transport)
        first = getattr(transport._pool, BACKEND)
        bound_network(transport)

        assert isinstance(first, DeadlineBackend)
        assert getattr(transport._pool, BACKEND) is first


def test_other_transports_are_left_alone() -> None:
    script = Script(200)
    bound_network(script)
    bound_network(None)

    assert not hasattr(script, "_pool")
    assert attach(httpx.Client(transport=script), Pipeline()).get("http://a.test").status_code == 200
