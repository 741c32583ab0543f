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
from resilience.httpx import ResilientTransport, attach, install, uninstall
from resilience.testing import VirtualClock, virtual_time
from tests.httpx.helpers import NOW, Script


@pytest.fixture(autouse=True)
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    yield
    uninstall()
    monkeypatch.undo()


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
        ({"a.test": CircuitBreaker()}, ValueError, "no URL pattern of a mount"),
        ({"://": CircuitBreaker()}, ValueError, "no URL pattern of a mount"),
        ({"http://[": CircuitBreaker()}, ValueError, "no URL pattern of a mount"),
        ({"all://a.test/path": CircuitBreaker()}, ValueError, "no URL pattern of a mount"),
        ({"all://a.*": CircuitBreaker()}, ValueError, "no URL pattern of a mount"),
        ({"all://a.test:99999": CircuitBreaker()}, ValueError, "no URL pattern of a mount"),
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


def test_leaving_a_client_rejects_calls_that_wait() -> None:
    sent: list[int] = []

    def busy(request: httpx.Request) -> httpx.Response:
        sent.append(1)
        return httpx.Response(503)

    async def main() -> httpx.Response:
        install({"all://": Pipeline(Retry(3, wait=backoff.fixed(0.3)), budget=None)})
        async with httpx.AsyncClient(transport=httpx.MockTransport(busy)) as client:
            task = asyncio.create_task(client.get("http://a.test"))
            await asyncio.sleep(0.1)
        return await task

    with virtual_time():
        assert "draining" in asyncio.run(main()).extensions["resilience"]
    assert len(sent) == 1


def test_a_transport_that_has_a_pipeline_gets_no_other() -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker)
    guarded = ResilientTransport(pipeline, Script(200))
    install({"all://": pipeline})
    first = httpx.Client(transport=guarded)
    routed = httpx.Client(transport=Script(200))
    inside: Any = routed
    second = httpx.Client(transport=inside._transport)
    for client in (first, routed, second):
        client.get("http://a.test")

    assert calls(breaker) == 3


def test_uninstall_leaves_what_others_have_put_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    breaker = CircuitBreaker()
    install({"all://": breaker})
    patched = httpx.Client.__init__

    def others(client: Any, *args: Any, **kwargs: Any) -> None:
        made.append(client)
        patched(client, *args, **kwargs)

    monkeypatch.setattr(httpx.Client, "__init__", others)
    uninstall()
    httpx.Client(transport=Script(200)).get("http://a.test")

    assert (len(made), calls(breaker)) == (1, 0)
    assert httpx.Client.__init__ is others
    monkeypatch.undo()
    uninstall()
    httpx.Client(transport=Script(200)).get("http://a.test")
    assert calls(breaker) == 0


def test_a_class_that_another_library_has_put_in_place_is_guarded_by_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    original = httpx.Client

    class Traced(httpx.Client):
        pass

    monkeypatch.setattr(httpx, "Client", Traced)
    breaker = CircuitBreaker()
    install({"all://": breaker})
    for kind in (original, Traced):
        kind(transport=Script(200)).get("http://a.test")
    uninstall()

    assert calls(breaker) == 2
    assert "__init__" not in vars(Traced)
