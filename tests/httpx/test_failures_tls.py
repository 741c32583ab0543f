"""Failures of TLS and of proxies, over every client: what another attempt may mend, and what it may not."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trio

from resilience import CircuitBreaker, Pipeline, Retry, backoff
from resilience.httpx import attach
from tests.httpx.helpers import both_modules, everywhere
from tests.httpx.tls import Authority, answering, garbling, refusing, serving

pytestmark = pytest.mark.slow
NO_TLS = b"\x17\x03\x03\x00\x20" + b"\x00" * 32
"""A record that cannot be decrypted."""
PART = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class Client:
    """Makes one request in one of three ways, and counts what the breaker has counted."""

    def __init__(self, module: Any, way: str) -> None:
        self.module = module
        self.way = way
        self.breaker = CircuitBreaker()
        self.pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), self.breaker)

    def __call__(self, url: str, method: str = "GET", **settings: Any) -> Any:
        async def main() -> Any:
            async with attach(self.module.AsyncClient(**settings), self.pipeline) as client:
                return await client.request(method, url)

        if self.way == "sync":
            with attach(self.module.Client(**settings), self.pipeline) as client:
                return client.request(method, url)
        return asyncio.run(main()) if self.way == "asyncio" else trio.run(main)

    @property
    def failures(self) -> int:
        counted: int = self.breaker.snapshot()["failures"]
        return counted


@both_modules
@everywhere
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate_is_asked_once(
    version: ssl.TLSVersion, way: str, module: Any, authority: Authority
) -> None:
    client = Client(module, way)

    with serving(answering(authority.server(wants_certificate=True))) as server:
        with pytest.raises((module.ConnectError, module.ReadError)):
            client(server.url, verify=authority.client(version=version))
        assert client(server.url, verify=authority.client(version=version, certificate=True)).status_code == 200

    assert (server.connections, server.requests, client.failures) == (2, 1, 0)


@both_modules
@everywhere
def test_a_certificate_that_is_not_trusted_is_looked_at_once(way: str, module: Any, authority: Authority) -> None:
    client = Client(module, way)

    with serving(answering(authority.server())) as server, pytest.raises(module.ConnectError):
        client(server.url, verify=ssl.create_default_context())

    assert (server.connections, client.failures) == (1, 0)


@both_modules
@everywhere
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_corrupted_record_is_a_read_error(method: str, way: str, module: Any, authority: Authority) -> None:
    client = Client(module, way)

    with serving(answering(authority.server(), b"", NO_TLS)) as server, pytest.raises(module.ReadError) as caught:
        client(server.url, method, verify=authority.client())

    attempts = 3 if method == "GET" else 1
    assert (server.requests, client.failures) == (attempts, attempts)
    assert caught.value.request.method == method


@both_modules
@everywhere
def test_so_is_one_in_the_body(way: str, module: Any, authority: Authority) -> None:
    client = Client(module, way)

    with serving(answering(authority.server(), PART, NO_TLS)) as server, pytest.raises(module.ReadError) as caught:
        client(server.url, verify=authority.client())

    assert (server.requests, client.failures) == (1, 1)
    assert caught.value.request.method == "GET"


@both_modules
@everywhere
def test_a_handshake_with_what_is_no_tls_is_unsent(way: str, module: Any, authority: Authority) -> None:
    client = Client(module, way)

    with serving(garbling) as server, pytest.raises(module.ConnectError):
        client(server.url, "POST", verify=authority.client())

    assert (server.connections, client.failures) == (3, 3)


@both_modules
@everywhere
@pytest.mark.parametrize(
    ("status", "attempts", "failures"),
    [
        ("403 Forbidden", 1, 0),
        ("404 Not Found", 1, 0),
        ("407 Proxy Authentication Required", 1, 0),
        ("408 Request Timeout", 3, 3),
        ("429 Too Many Requests", 3, 0),
        ("502 Bad Gateway", 3, 3),
        ("503 Service Unavailable", 3, 3),
    ],
)
def test_the_answer_of_a_proxy_to_connect(status: str, attempts: int, failures: int, way: str, module: Any) -> None:
    client = Client(module, way)

    with serving(refusing(status), "http") as proxy, pytest.raises(module.ProxyError, match=status[:3]):
        client("https://target.test", "POST", proxy=proxy.url)

    assert (proxy.connections, client.failures) == (attempts, failures)
