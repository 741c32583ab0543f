"""`install`: clients that are made later are guarded by the routes of their requests."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import httpx
import httpx2
import pytest

from resilience import CircuitBreaker, Pipeline, Retry, backoff
from resilience.events import RetryScheduled
from resilience.httpx import attach, install, uninstall
from resilience.testing import VirtualClock
from tests.httpx.helpers import NOW, Script


@pytest.fixture(autouse=True)
def uninstalled() -> Generator[None]:
    yield
    uninstall()


def calls(breaker: CircuitBreaker) -> int:
    found: int = breaker.snapshot()["calls"]
    return found


def test_requests_pass_through_the_pipeline_of_their_route_and_others_are_sent_as_ever() -> None:
    exact, any_host = CircuitBreaker(), CircuitBreaker()
    before = httpx.Client(transport=Script(200))
    install({"all://*.b.test": any_host, "https://api.b.test": exact})
    script, mounted = Script(200), Script(200)
    client = httpx.Client(transport=script, mounts={"all://mounted.b.test": mounted})

    for url in ("https://api.b.test", "http://api.b.test", "http://mounted.b.test", "http://other.test"):
        assert client.get(url).status_code == 200
    before.get("https://api.b.test")

    assert (calls(exact), calls(any_host)) == (1, 2)
    assert (len(script.requests), len(mounted.requests)) == (3, 1)
    client.close()
    assert (script.closed, mounted.closed) == (1, 1)


def test_a_call_that_waits_as_the_client_is_closed_is_rejected(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.fixed(1.0)), budget=None)
    install({"all://a.test": pipeline})
    script = Script(503)
    client = httpx.Client(transport=script)

    def close(event: RetryScheduled) -> None:
        client.close()

    with pipeline.subscribe(close, events=[RetryScheduled]):
        assert client.get("http://a.test").status_code == 503
    assert len(script.requests) == 1


def test_async_clients_and_those_of_httpx2_are_guarded_too() -> None:
    breaker = CircuitBreaker()
    install({"all://": breaker})

    async def main() -> None:
        async with httpx.AsyncClient(transport=Script(200)) as client:
            await client.get("http://a.test")

    asyncio.run(main())
    with httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200))) as client:
        client.get("http://a.test")
    assert calls(breaker) == 2


def test_subclasses_are_guarded() -> None:
    class Own(httpx.Client):
        pass

    breaker = CircuitBreaker()
    install({"all://a.test": breaker})
    Own(transport=Script(200)).get("http://a.test")

    assert calls(breaker) == 1


def test_attach_replaces_what_was_installed() -> None:
    script = Script(500)
    install({"all://a.test": Pipeline(Retry(3, wait=NOW), budget=None)})
    client = attach(httpx.Client(transport=script), Pipeline(Retry(2, wait=NOW), budget=None))
    client.get("http://a.test")

    assert len(script.requests) == 2


def test_uninstall_ends_it_for_clients_that_are_made_after_it() -> None:
    own = httpx.Client.__init__
    breaker = CircuitBreaker()
    install({"all://": breaker})
    between = httpx.Client(transport=Script(200))
    uninstall()

    httpx.Client(transport=Script(200)).get("http://a.test")
    assert calls(breaker) == 0
    assert httpx.Client.__init__ is own
    between.get("http://a.test")
    assert calls(breaker) == 1
    uninstall()


@pytest.mark.parametrize(
    ("pipelines", "error", "message"),
    [
        ({}, ValueError, "at least one"),
        (CircuitBreaker(), TypeError, "must be a mapping"),
        ({"all://a.test": 3}, TypeError, "URL patterns to pipelines"),
        ({"a.test": CircuitBreaker()}, ValueError, "one of a mount"),
        ({"all://a": CircuitBreaker(), "all://a:port": CircuitBreaker()}, ValueError, "is no URL pattern"),
    ],
)
def test_bad_arguments_are_refused(pipelines: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        install(pipelines)
    httpx.Client(transport=Script(200)).get("http://a.test")


def test_a_second_installation_is_refused() -> None:
    install({"all://": CircuitBreaker()})

    with pytest.raises(ValueError, match="installed already"):
        install({"all://": CircuitBreaker()})
