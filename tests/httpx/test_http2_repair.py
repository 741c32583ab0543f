"""HTTP/2: responses that are left early do no harm to those that follow on the same connection."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import anyio
import pytest
import trio

from resilience import DeadlineExceededError, Pipeline, Retry, Timeout
from resilience.httpx import attach
from resilience.httpx._http2_repair import http2_pool_of
from tests.httpx.helpers import NOW, WAYS, both_modules
from tests.httpx.http2_server import Http2Server

# Bodies that are closed early leave generators of httpx to the garbage collector, and trio warns of that.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored (in|while finalizing generator).? <async_generator object"
)
STREAMS = 100
"""How many streams a server of the package h2 admits at once."""


@pytest.fixture(scope="module")
def server() -> Generator[Http2Server]:
    with Http2Server() as server:
        yield server


class Client:
    """Makes requests over HTTP/2, in one of three ways."""

    def __init__(self, way: str, module: Any, pipeline: Pipeline[Any]) -> None:
        self.way = way
        self.module = module
        self.pipeline = pipeline

    def statuses(self, urls: list[str], *, read: bool = True) -> list[Any]:
        """Return the status of each response, or the name of the error; without `read`, bodies are closed unread."""
        if self.way == "sync":
            with attach(self.module.Client(http1=False, http2=True, timeout=5.0), self.pipeline) as client:
                return [self._status(client, url, read) for url in urls]

        async def main() -> list[Any]:
            client = attach(self.module.AsyncClient(http1=False, http2=True, timeout=5.0), self.pipeline)
            with anyio.fail_after(60):
                async with client:
                    return [await self._astatus(client, url, read) for url in urls]

        return asyncio.run(main()) if self.way == "asyncio" else trio.run(main)

    @staticmethod
    def _status(client: Any, url: str, read: bool) -> Any:
        try:
            with client.stream("GET", url) as response:
                if read:
                    response.read()
                return response.status_code
        except DeadlineExceededError:
            return "cut"

    @staticmethod
    async def _astatus(client: Any, url: str, read: bool) -> Any:
        try:
            async with client.stream("GET", url) as response:
                if read:
                    await response.aread()
                return response.status_code
        except DeadlineExceededError:
            return "cut"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@both_modules
def test_requests_that_are_cut_leave_no_streams(server: Http2Server, way: str, module: Any) -> None:
    client = Client(way, module, Pipeline(Timeout(0.01)))
    found = client.statuses([f"{server.url}/hang"] * (STREAMS + 20))

    assert found == ["cut"] * (STREAMS + 20)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@both_modules
def test_after_them_the_connection_works(server: Http2Server, way: str, module: Any) -> None:
    class Pausing(Timeout):
        """Cuts requests of /hang only."""

        def deadline(self, call: Any, now: float) -> float:
            return now + (0.01 if call.request.url.path == "/hang" else 5.0)

        @property
        def seconds(self) -> None:
            return None

    urls = [f"{server.url}/hang"] * (STREAMS + 20) + [f"{server.url}/ok"] * 3
    assert Client(way, module, Pipeline(Pausing(5.0))).statuses(urls) == ["cut"] * (STREAMS + 20) + [200] * 3


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@both_modules
def test_bodies_that_are_not_read_do_not_use_up_the_window(server: Http2Server, way: str, module: Any) -> None:
    """The window is of 16 MiB."""
    urls = [f"{server.url}/busy/500000", f"{server.url}/busy/10000"] * 60
    client = Client(way, module, Pipeline())

    assert client.statuses([*urls, f"{server.url}/ok"], read=False) == [503] * len(urls) + [200]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@both_modules
def test_nor_do_those_that_a_retry_discards(server: Http2Server, way: str, module: Any) -> None:
    client = Client(way, module, Pipeline(Retry(2, wait=NOW), budget=None))
    urls = [f"{server.url}/busy/1000000", f"{server.url}/busy/10000"] * 20

    assert client.statuses([*urls, f"{server.url}/ok"]) == [503] * len(urls) + [200]


@both_modules
def test_pools_that_use_http2_are_known(module: Any) -> None:
    with module.HTTPTransport(http2=True) as with_http2, module.HTTPTransport() as without:
        assert http2_pool_of(with_http2) is with_http2._pool
        assert http2_pool_of(without) is None
    assert http2_pool_of(object()) is None
