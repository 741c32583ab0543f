"""The places in the pool of httpcore: they are given back where httpcore itself would lose them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from resilience import Pipeline
from resilience.httpx import AsyncResilientTransport, attach
from tests.httpx.server import Server

# Who stops reading leaves generators of httpx to the garbage collector, and trio warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")


def test_the_pool_of_httpcore_is_as_expected() -> None:
    """Where this fails, look whether httpcore still loses places, and where: see `resilience.httpx._pool_repair`."""
    transport: Any = AsyncResilientTransport(Pipeline())

    assert transport._pool is not None
    assert transport._pool._connections == transport._pool._requests == []


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
