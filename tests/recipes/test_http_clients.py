"""The recipes for requests and aiohttp, as their pages have them, with a misbehaving server."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import requests
from requests.adapters import HTTPAdapter

from resilience.testing import FaultyServer
from tests.recipes.pages import definitions

pytestmark = pytest.mark.slow


@pytest.fixture
def aiohttp_page() -> Any:
    return definitions("aiohttp.md", "async def fetch", "async def guard")


def test_an_aiohttp_call_is_retried_and_an_order_is_not(aiohttp_page: Any) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(server.url, timeout=aiohttp_page.NO_TIMEOUT) as session:
            assert await aiohttp_page.fetch(session, "/fail-then-ok?failures=2") == "ok"
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                await aiohttp_page.order(session, "/503")
            assert caught.value.status == 503
            assert "not idempotent" in caught.value.__notes__[0]

    with FaultyServer() as server:
        asyncio.run(main())
        assert server.count("GET", "/fail-then-ok") == 3
        assert server.count("POST", "/503") == 1


def test_the_middleware_of_aiohttp_retries_by_the_method_and_loses_no_connection(aiohttp_page: Any) -> None:
    async def main() -> None:
        async with aiohttp_page.make_session(server.url) as session:
            async with session.get("/fail-then-ok?failures=2") as response:
                assert await response.text() == "ok"
            async with session.post("/503", json={}) as response:
                assert response.status == 503
            async with session.post("/fail-then-ok?fault=429", json={}) as response:
                assert await response.text() == "ok"
        assert server.connections == 1

    with FaultyServer() as server:
        asyncio.run(main())
        assert server.count("POST", "/503") == 1


def test_aiohttp_is_cut_at_the_deadline(aiohttp_page: Any) -> None:
    aiohttp_page.quotes["timeout_2"].update(seconds=0.05)

    async def main() -> None:
        async with aiohttp_page.make_session(server.url) as session:
            with pytest.raises(TimeoutError):
                await session.get("/stall")

    with FaultyServer() as server:
        asyncio.run(main())
        assert server.count("GET", "/stall") == 3


@pytest.fixture
def session() -> requests.Session:
    page = definitions("requests.md", "@quotes\ndef fetch", "class GuardedAdapter")
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", page.GuardedAdapter(page.quotes, HTTPAdapter()))
    return session


def test_the_adapter_of_requests_sends_a_stream_once(session: requests.Session) -> None:
    with FaultyServer() as server:
        response = session.put(f"{server.url}/fail-then-ok?fault=429", data=iter([b"one", b"two"]))

        assert response.status_code == 429
        assert [one.body_length for one in server.requests] == [6]


def test_the_adapter_of_requests_retries_a_reset_by_the_method(session: requests.Session) -> None:
    with FaultyServer() as server:
        assert session.get(f"{server.url}/fail-then-ok?fault=reset").text == "ok"
        with pytest.raises(requests.ConnectionError):
            session.post(f"{server.url}/reset", json={})
        assert server.count("POST", "/reset") == 1
        key = {"Idempotency-Key": "7"}
        assert session.post(f"{server.url}/fail-then-ok?fault=reset&key=b", json={}, headers=key).text == "ok"
