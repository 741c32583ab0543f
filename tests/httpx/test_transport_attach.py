"""`attach`: which clients it takes, and which of their transports it wraps."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from resilience import CircuitBreaker, Pipeline, Retry
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
