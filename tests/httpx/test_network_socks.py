"""SOCKS proxies: their handshake ends in time, and what fails in it was not sent."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import trio

from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import clock
from resilience.httpx import attach
from tests.httpx.helpers import both_modules, everywhere
from tests.httpx.tls import GOOD, Served, read_request, serving

pytestmark = pytest.mark.slow
SECONDS = 0.4
SLACK = 0.25
GRANTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def refused(code: int) -> bytes:
    return bytes([5, code]) + GRANTED[2:]


class Proxy:
    """A SOCKS proxy (RFC 1928) that answers the request for a connection like that; None: it says nothing.

    After a granted one, it serves HTTP itself, or is silent.
    """

    def __init__(self, reply: bytes | None, *, serves: bool = True) -> None:
        self.reply = reply
        self.serves = serves
        self.held = 0.0

    def __call__(self, connection: socket.socket, served: Served) -> None:
        connection.recv(4096)
        if self.reply is None:
            started = clock.monotonic()
            connection.recv(1)
            self.held = clock.monotonic() - started
            return
        connection.sendall(b"\x05\x00")
        connection.recv(4096)
        connection.sendall(self.reply)
        if self.reply != GRANTED:
            return
        while True:
            read_request(connection, served)
            if self.serves:
                connection.sendall(GOOD)


def ask(way: str, module: Any, proxy: Proxy, pipeline: Pipeline[Any], requests: int = 1) -> tuple[list[Any], Served]:
    """Send a POST through a proxy, some times, and return what came of it."""

    async def main(url: str) -> list[Any]:
        async with attach(module.AsyncClient(proxy=url, timeout=30.0), pipeline) as client:
            return [await client.post("http://target.test", content=b"order") for _ in range(requests)]

    with serving(proxy, "socks5") as served:
        if way == "sync":
            with attach(module.Client(proxy=served.url, timeout=30.0), pipeline) as client:
                responses = [client.post("http://target.test", content=b"order") for _ in range(requests)]
        else:
            responses = asyncio.run(main(served.url)) if way == "asyncio" else trio.run(main, served.url)
    return [response.status_code for response in responses], served


@both_modules
@everywhere
def test_requests_pass_a_proxy(way: str, module: Any) -> None:
    statuses, served = ask(way, module, Proxy(GRANTED), Pipeline(Timeout(5.0), Retry()), requests=3)

    assert statuses == [200, 200, 200]
    assert (served.connections, served.requests) == (1, 3)


@both_modules
@everywhere
def test_a_handshake_without_an_answer_ends_at_the_deadline(way: str, module: Any) -> None:
    proxy = Proxy(None)

    with pytest.raises(DeadlineExceededError):
        ask(way, module, proxy, Pipeline(Timeout(SECONDS)))

    assert 0 < proxy.held < SECONDS + SLACK, "its connection was left open"


@both_modules
@everywhere
@pytest.mark.parametrize(
    ("code", "attempts", "failures"),
    [(2, 1, 0), (4, 3, 3), (5, 3, 3)],
    ids=["not allowed by its rules", "host unreachable", "connection refused"],
)
def test_what_a_proxy_says_about_the_connection(code: int, attempts: int, failures: int, way: str, module: Any) -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(Retry(3, wait=backoff.none()), breaker)
    seen: list[Served] = []

    class Noting(Proxy):
        def __call__(self, connection: socket.socket, served: Served) -> None:
            seen.append(served)
            super().__call__(connection, served)

    with pytest.raises(module.ProxyError):
        ask(way, module, Noting(refused(code)), pipeline)

    assert (len(seen), breaker.snapshot()["failures"]) == (attempts, failures)


@both_modules
@everywhere
def test_a_request_that_was_cut_after_the_handshake_may_have_been_processed(way: str, module: Any) -> None:
    seen: list[Served] = []

    class Noting(Proxy):
        def __call__(self, connection: socket.socket, served: Served) -> None:
            seen.append(served)
            super().__call__(connection, served)

    with pytest.raises(DeadlineExceededError) as caught:
        ask(way, module, Noting(GRANTED, serves=False), Pipeline(Retry(3, wait=backoff.none()), Timeout(SECONDS)))

    assert not caught.value.unprocessed
    assert [served.requests for served in seen] == [1]


@both_modules
@everywhere
def test_one_that_was_cut_in_the_handshake_was_not(way: str, module: Any) -> None:
    seen: list[Served] = []

    class Noting(Proxy):
        def __call__(self, connection: socket.socket, served: Served) -> None:
            seen.append(served)
            super().__call__(connection, served)

    with pytest.raises(DeadlineExceededError):
        ask(way, module, Noting(None), Pipeline(Retry(2, wait=backoff.none()), Timeout(SECONDS)))

    assert len(seen) == 2
