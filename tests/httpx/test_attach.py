"""`attach`: which clients it takes, and which of their transports it wraps."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest

from resilience import CircuitBreaker, CircuitOpenError, Pipeline, Retry, pipelines
from resilience.httpx import ResilientTransport, attach
from tests.httpx.helpers import Script


def test_attach_wraps_every_transport() -> None:
    script, mounted = Script(200), Script(204)
    client = httpx.Client(transport=script, mounts={"all://proxied.test": mounted, "all://direct.test": None})
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker)

    assert attach(client, pipeline) is client
    for host, status in (("quotes", 200), ("proxied", 204), ("direct", 200)):
        assert client.get(f"http://{host}.test").status_code == status

    assert breaker.snapshot()["calls"] == 3
    client.close()
    assert (script.closed, mounted.closed) == (1, 1)


def test_attach_wraps_one_transport_once() -> None:
    shared = Script(200)
    client = attach(httpx.Client(transport=shared, mounts={"all://other.test": shared}), Pipeline())
    inside: Any = client

    assert {id(inside._transport)} == {id(one) for one in inside._mounts.values()}


@pytest.mark.parametrize("client", [None, httpx.Client, object(), httpx.MockTransport(lambda request: None)])  # type: ignore[arg-type]
def test_attach_takes_clients_only(client: Any) -> None:
    with pytest.raises(TypeError, match="client must be"):
        attach(client, Pipeline())


def test_a_client_is_guarded_once() -> None:
    client = httpx.Client()
    attach(client, Retry())

    with pytest.raises(ValueError, match="guarded already"):
        attach(client, Retry())


def test_a_client_with_a_guarded_mount_is_guarded_already() -> None:
    client = httpx.Client(mounts={"http://": ResilientTransport(Retry())})

    with pytest.raises(ValueError, match="guarded already"):
        attach(client, Retry())


def test_the_same_pipeline_again_changes_nothing() -> None:
    pipeline = Pipeline(Retry())
    client = attach(httpx.Client(mounts={"all://other.test": Script(200)}), pipeline)
    inside: Any = client
    before = inside._transport, dict(inside._mounts)

    assert attach(client, pipeline) is client
    assert (inside._transport, inside._mounts) == before
    with pytest.raises(ValueError, match="guarded already"):
        attach(client, Pipeline(Retry()))
    with pytest.raises(ValueError, match="guarded already"):
        attach(client, pipeline.bind(idempotent=True))


def test_an_object_of_an_sdk_is_refused_with_the_attribute_that_has_its_client() -> None:
    class OpenAI:
        def __init__(self) -> None:
            self._version = "1"
            self._client = httpx.Client()

    sdk = OpenAI()
    with pytest.raises(TypeError, match=r"its client is the attribute _client: pass that, such as client\._client"):
        attach(sdk, Pipeline())
    sdk._client.close()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"settle": "never"}, ValueError, 'settle must be "body" or "headers"'),
        ({"reject_with": "silence"}, ValueError, 'reject_with must be "error" or "response"'),
        ({"idempotent": 3}, TypeError, "idempotent must be patterns"),
        ({"idempotent": ["*/_search"]}, ValueError, "a method in capitals"),
        ({"idempotent": ["post /x"]}, ValueError, "a method in capitals"),
        ({"idempotent": [3]}, TypeError, "must be a pattern"),
        ({"propagate_to": ["http://a.test"]}, ValueError, '"host" or "host:port"'),
        ({"propagate_to": [3]}, TypeError, "an element of propagate_to"),
        ({"idempotency_key": "Idempotency-Key"}, TypeError, "an IdempotencyKey, which names its hosts"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attach(httpx.Client(), Pipeline(), **settings)


def test_without_a_pipeline_each_host_has_its_own_breaker_and_all_clients_share_them() -> None:
    broken, fine = Script(500), Script(200)
    first = attach(httpx.Client(transport=broken))
    for _ in range(20):
        with contextlib.suppress(CircuitOpenError):
            first.post("http://dead.test")
    second = attach(httpx.Client(transport=fine))

    with pytest.raises(CircuitOpenError):
        second.get("http://dead.test")
    assert second.get("http://alive.test").status_code == 200
    assert attach(second) is second
    pipelines()["httpx"].reset()


def test_other_settings_are_refused_and_so_are_bad_ones() -> None:
    garbage: Any = {"settle": "garbage"}
    client = attach(httpx.Client(), pipeline := Pipeline(Retry()), propagate_to="a.test")

    assert attach(client, pipeline, propagate_to=["A.test"]) is client
    with pytest.raises(ValueError, match="with other settings"):
        attach(client, pipeline, propagate_to="a.test", reject_with="response")
    with pytest.raises(ValueError, match="settle"):
        attach(client, pipeline, **garbage)
