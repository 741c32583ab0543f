"""HTTP/2, where a connection has many responses: what reading one to its end would do to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import httpcore
import httpx
import pytest

from resilience import Bulkhead, Pipeline
from resilience.httpx import attach
from tests.httpx.helpers import Pool
from tests.httpx.server import Server

# Who stops reading leaves generators of httpx to the garbage collector, and trio warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")
both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Stalling:
    """The body of a stream that httpcore forgets when it is closed: who goes on reading waits for ever."""

    def __init__(self) -> None:
        self.closed = 0
        self.waiting = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first"
        self.waiting += 1
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.closed += 1


@both_loops
def test_closing_a_response_early_does_not_wait_for_the_rest(backend: str) -> None:
    bulkhead, body = Bulkhead(1), Stalling()
    pool = Pool(httpcore.Response(200, content=body, extensions={"http_version": b"HTTP/2"}))

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=pool.below("async")), Pipeline(bulkhead))
        with anyio.fail_after(5):
            async with client.stream("GET", "http://quotes.test") as response:
                async for chunk in response.aiter_raw():
                    assert chunk == b"first"
                    break

    anyio.run(main, backend=backend)

    assert (body.closed, body.waiting, bulkhead.in_flight) == (1, 0, 0)


@pytest.mark.slow
@both_loops
def test_what_goes_on_after_it_was_closed_is_not_waited_for_long(backend: str) -> None:
    body = Stalling()
    pool = Pool(httpcore.Response(200, content=body, extensions={"http_version": b"HTTP/1.1"}))

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=pool.below("async")), Pipeline())
        with anyio.fail_after(5):
            async with client.stream("GET", "http://quotes.test") as response:
                async for _ in response.aiter_raw():
                    break

    anyio.run(main, backend=backend)

    assert (body.closed, body.waiting) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("http2", [False, True])
def test_places_are_given_back_when_what_was_being_connected_may_become_http2(http2: bool) -> None:
    """Such a connection calls itself available, although no request has it and none will."""

    async def main() -> None:
        transport = httpx.AsyncHTTPTransport(http2=http2, verify=False, limits=httpx.Limits(max_connections=4))
        client = attach(httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(2, pool=0.5)), Pipeline())
        urls = [server.url.replace("http://127.0.0.1", f"https://127.0.0.{number + 2}") for number in range(8)]
        tasks = [asyncio.create_task(client.get(url)) for url in urls]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await client.get(f"{server.url}/good")).status_code == 200
        await client.aclose()

    with Server() as server:
        asyncio.run(main())
